# The daemon is every room; the tool talks to its socket; its image commands link lun-backends.
noinst_LIBRARIES += libadmin.a
libadmin_a_SOURCES = \
	admin/accounts.c \
	admin/accounts.h \
	admin/background.c \
	admin/background.h \
	admin/blockers.c \
	admin/chain-info.c \
	admin/chain-info.h \
	admin/chains.c \
	admin/chains.h \
	admin/cmd-account.c \
	admin/cmd-block.c \
	admin/cmd-chain.c \
	admin/cmd-config.c \
	admin/cmd-copy.c \
	admin/cmd-filter.c \
	admin/cmd-inject.c \
	admin/cmd-job.c \
	admin/cmd-live.c \
	admin/cmd-log.c \
	admin/cmd-mask.c \
	admin/cmd-query.c \
	admin/commands.c \
	admin/commands.h \
	admin/control.c \
	admin/control.h \
	admin/copy-target.c \
	admin/daemon.h \
	admin/events.c \
	admin/events.h \
	admin/export.c \
	admin/health.c \
	admin/health.h \
	admin/holds.c \
	admin/holds.h \
	admin/isns.c \
	admin/isns.h \
	admin/json-stream.c \
	admin/json-stream.h \
	admin/json-util.c \
	admin/json-util.h \
	admin/layers.c \
	admin/live-backing.c \
	admin/live-commit.c \
	admin/live-copy.c \
	admin/live-drop.c \
	admin/live-layers.c \
	admin/live-stream.c \
	admin/live.c \
	admin/live.h \
	admin/paths.c \
	admin/paths.h \
	admin/pull-base.c \
	admin/pull-drop.c \
	admin/pull-layers.c \
	admin/pull-overlay.c \
	admin/pull.c \
	admin/pull.h \
	admin/qmp-client.h \
	admin/qmp-meta.c \
	admin/qmp-meta.h \
	admin/record.c \
	admin/record.h \
	admin/reservations.c \
	admin/reservations.h \
	admin/secret.c \
	admin/secret.h \
	admin/serve.c \
	admin/settings.c \
	admin/settings.h \
	admin/state.c \
	admin/state.h \
	admin/streams.c \
	admin/throttles.c

sbin_PROGRAMS += cowtgtd
cowtgtd_SOURCES = admin/cowtgtd.c
cowtgtd_LDADD = libadmin.a libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS) $(JANSSON_LIBS) $(ISNS_LIBS)

noinst_LIBRARIES += libcli.a
libcli_a_SOURCES = \
	admin/cli-account.c \
	admin/cli-args.c \
	admin/cli-chain.c \
	admin/cli-client.c \
	admin/cli-complete.c \
	admin/cli-config-check.c \
	admin/cli-config-limits.c \
	admin/cli-config-plan.c \
	admin/cli-config-plan.h \
	admin/cli-config.c \
	admin/cli-config.h \
	admin/cli-image.c \
	admin/cli-job.c \
	admin/cli-log.c \
	admin/cli-misc.c \
	admin/cli-print.c \
	admin/cli-status.c \
	admin/cli-table.c \
	admin/cli-throttle.c \
	admin/cli.h \
	admin/json-stream.c \
	admin/json-util.c \
	admin/paths.c

bin_PROGRAMS += cowtgt
cowtgt_SOURCES = admin/cowtgt.c
cowtgt_LDADD = libcli.a libimage.a libcli.a $(LUN_LIBS) $(JANSSON_LIBS)

noinst_LIBRARIES += libimage.a
libimage_a_SOURCES = \
	admin/image-change.c \
	admin/image-check.c \
	admin/image-compare.c \
	admin/image-convert.c \
	admin/image-copy.c \
	admin/image-info.c \
	admin/image-map.c \
	admin/image-new.c \
	admin/image-open.c \
	admin/image-run.c \
	admin/image.h
