dist_man_MANS += docs/cowtgtd.8 docs/cowtgt.1
EXTRA_DIST += docs/architecture.md docs/bad-links.md docs/conformance.md docs/cow-layer-extension.md \
	docs/crash-safety.md docs/image-formats.md docs/image-settings.md docs/live-chains.md
