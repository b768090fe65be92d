dist_man_MANS += docs/cowtgtd.8 docs/cowtgt.1
EXTRA_DIST += docs/architecture.md docs/bad-links.md docs/conformance.md docs/cow-layer-extension.md \
	docs/crash-safety.md docs/image-formats.md docs/image-settings.md docs/live-chains.md \
	docs/confidentiality.md docs/how-to/README.md docs/how-to/keep-a-configuration.md \
	docs/how-to/monitor.md contrib/systemd/cowtgtd.service contrib/systemd/cowtgtd@.service \
	contrib/systemd/cowtgtd.default contrib/wireshark/cowtgt.lua contrib/wireshark/cowtgt.pcap
EXTRA_DIST += docs/data-path.md docs/iscsi.md docs/scsi.md
