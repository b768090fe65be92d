# Unit tests: googletest behind a thin C wrapper. A test links its room and the rooms below, so a
# call upwards does not link.
check_LIBRARIES += libctest.a
libctest_a_SOURCES = tests/unit/gtest-main.cc tests/unit/ctest.h
CTEST_LIBS = libctest.a $(GTEST_LIBS) -lstdc++ -lm

if HAVE_GTEST
UNIT_TESTS += \
	tests/unit/test-access \
	tests/unit/test-block-device \
	tests/unit/test-block \
	tests/unit/test-bus-guard \
	tests/unit/test-chain-name \
	tests/unit/test-chain-reader \
	tests/unit/test-chap \
	tests/unit/test-cli-config \
	tests/unit/test-cli-table \
	tests/unit/test-commit \
	tests/unit/test-copy-on-read \
	tests/unit/test-cow-wire \
	tests/unit/test-cowmap \
	tests/unit/test-digest \
	tests/unit/test-file-faults \
	tests/unit/test-file-lend \
	tests/unit/test-file \
	tests/unit/test-holds \
	tests/unit/test-inject \
	tests/unit/test-io-error \
	tests/unit/test-iov \
	tests/unit/test-job \
	tests/unit/test-json-stream \
	tests/unit/test-layers \
	tests/unit/test-log \
	tests/unit/test-mask \
	tests/unit/test-merged \
	tests/unit/test-negotiate \
	tests/unit/test-pace \
	tests/unit/test-pdu \
	tests/unit/test-pr \
	tests/unit/test-qcow2-check \
	tests/unit/test-qcow2-compress \
	tests/unit/test-qcow2-faults \
	tests/unit/test-qcow2-features \
	tests/unit/test-qcow2-first \
	tests/unit/test-qcow2-format \
	tests/unit/test-qcow2-image \
	tests/unit/test-qcow2-settings \
	tests/unit/test-qcow2-writes \
	tests/unit/test-qcow2 \
	tests/unit/test-ram \
	tests/unit/test-remote-status \
	tests/unit/test-remote-url \
	tests/unit/test-reopen \
	tests/unit/test-replica \
	tests/unit/test-scsi-commands \
	tests/unit/test-scsi-limits \
	tests/unit/test-scsi-opcodes \
	tests/unit/test-scsi-residuals \
	tests/unit/test-scsi-self \
	tests/unit/test-scsi-status \
	tests/unit/test-scsi-units \
	tests/unit/test-scsi \
	tests/unit/test-sendtargets \
	tests/unit/test-sense \
	tests/unit/test-state \
	tests/unit/test-stream-live \
	tests/unit/test-stream-need \
	tests/unit/test-stream-shapes \
	tests/unit/test-stream \
	tests/unit/test-text \
	tests/unit/test-throttle-bucket \
	tests/unit/test-throttle \
	tests/unit/test-upper \
	tests/unit/test-utf8 \
	tests/unit/test-util \
	tests/unit/test-vpd
endif

tests_unit_test_access_SOURCES = tests/unit/test-access.c
tests_unit_test_access_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_block_device_SOURCES = tests/unit/test-block-device.c
tests_unit_test_block_device_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_block_SOURCES = tests/unit/test-block.c
tests_unit_test_block_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_bus_guard_SOURCES = tests/unit/test-bus-guard.c
tests_unit_test_bus_guard_LDADD = $(CTEST_LIBS) $(UTIL_LIBS)

tests_unit_test_chain_name_SOURCES = tests/unit/test-chain-name.c
tests_unit_test_chain_name_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_chain_reader_SOURCES = tests/unit/test-chain-reader.c
tests_unit_test_chain_reader_LDADD = $(CTEST_LIBS) libdiscovery.a $(LUN_LIBS)

tests_unit_test_chap_SOURCES = tests/unit/test-chap.c
tests_unit_test_chap_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_cli_config_SOURCES = tests/unit/test-cli-config.c
tests_unit_test_cli_config_LDADD = $(CTEST_LIBS) libcli.a $(UTIL_LIBS) $(JANSSON_LIBS)

tests_unit_test_cli_table_SOURCES = tests/unit/test-cli-table.c
tests_unit_test_cli_table_LDADD = $(CTEST_LIBS) libcli.a $(UTIL_LIBS) $(JANSSON_LIBS)

tests_unit_test_commit_SOURCES = tests/unit/test-commit.c tests/unit/mem-node.c tests/unit/mem-node.h
tests_unit_test_commit_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_copy_on_read_SOURCES = tests/unit/test-copy-on-read.c tests/unit/mem-node.c tests/unit/mem-node.h
tests_unit_test_copy_on_read_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_cow_wire_SOURCES = tests/unit/test-cow-wire.c
tests_unit_test_cow_wire_LDADD = $(CTEST_LIBS) $(UTIL_LIBS)

tests_unit_test_cowmap_SOURCES = tests/unit/test-cowmap.c tests/unit/mem-node.c tests/unit/mem-node.h
tests_unit_test_cowmap_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_digest_SOURCES = tests/unit/test-digest.c
tests_unit_test_digest_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_file_faults_SOURCES = tests/unit/test-file-faults.c
tests_unit_test_file_faults_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_file_lend_SOURCES = tests/unit/test-file-lend.c
tests_unit_test_file_lend_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_file_SOURCES = tests/unit/test-file.c
tests_unit_test_file_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_holds_SOURCES = tests/unit/test-holds.c
tests_unit_test_holds_LDADD = $(CTEST_LIBS) libadmin.a libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS) $(JANSSON_LIBS)

tests_unit_test_inject_SOURCES = tests/unit/test-inject.c tests/unit/mem-node.c tests/unit/mem-node.h
tests_unit_test_inject_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_io_error_SOURCES = tests/unit/test-io-error.c tests/unit/mem-node.c tests/unit/mem-node.h tests/unit/scsi-fake.c tests/unit/scsi-fake.h
tests_unit_test_io_error_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_iov_SOURCES = tests/unit/test-iov.c
tests_unit_test_iov_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_job_SOURCES = tests/unit/test-job.c tests/unit/mem-node.c tests/unit/mem-node.h
tests_unit_test_job_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_json_stream_SOURCES = tests/unit/test-json-stream.c
tests_unit_test_json_stream_LDADD = $(CTEST_LIBS) libadmin.a libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS) $(JANSSON_LIBS)

tests_unit_test_layers_SOURCES = tests/unit/test-layers.c
tests_unit_test_layers_LDADD = $(CTEST_LIBS) libadmin.a libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS) $(JANSSON_LIBS)

tests_unit_test_log_SOURCES = tests/unit/test-log.c
tests_unit_test_log_LDADD = $(CTEST_LIBS) $(UTIL_LIBS)

tests_unit_test_mask_SOURCES = tests/unit/test-mask.c tests/unit/mem-node.c tests/unit/mem-node.h tests/unit/scsi-fake.c tests/unit/scsi-fake.h
tests_unit_test_mask_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_merged_SOURCES = tests/unit/test-merged.c tests/unit/qcow2-image.c tests/unit/qcow2-image.h
tests_unit_test_merged_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_negotiate_SOURCES = tests/unit/test-negotiate.c
tests_unit_test_negotiate_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_pace_SOURCES = tests/unit/test-pace.c
tests_unit_test_pace_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_pdu_SOURCES = tests/unit/test-pdu.c
tests_unit_test_pdu_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_pr_SOURCES = tests/unit/test-pr.c
tests_unit_test_pr_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_qcow2_check_SOURCES = tests/unit/test-qcow2-check.c tests/unit/qcow2-image.c tests/unit/qcow2-image.h
tests_unit_test_qcow2_check_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_qcow2_compress_SOURCES = tests/unit/test-qcow2-compress.c tests/unit/qcow2-image.c tests/unit/qcow2-image.h
tests_unit_test_qcow2_compress_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_qcow2_faults_SOURCES = tests/unit/test-qcow2-faults.c tests/unit/qcow2-image.c tests/unit/qcow2-image.h
tests_unit_test_qcow2_faults_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_qcow2_features_SOURCES = tests/unit/test-qcow2-features.c tests/unit/qcow2-image.c tests/unit/qcow2-image.h
tests_unit_test_qcow2_features_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_qcow2_first_SOURCES = tests/unit/test-qcow2-first.c tests/unit/mem-node.c tests/unit/mem-node.h
tests_unit_test_qcow2_first_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_qcow2_format_SOURCES = tests/unit/test-qcow2-format.c
tests_unit_test_qcow2_format_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_qcow2_image_SOURCES = tests/unit/test-qcow2-image.c tests/unit/mem-node.c tests/unit/mem-node.h tests/unit/qcow2-image.c tests/unit/qcow2-image.h
tests_unit_test_qcow2_image_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_qcow2_settings_SOURCES = tests/unit/test-qcow2-settings.c
tests_unit_test_qcow2_settings_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_qcow2_writes_SOURCES = tests/unit/test-qcow2-writes.c tests/unit/mem-node.c tests/unit/mem-node.h tests/unit/qcow2-image.c tests/unit/qcow2-image.h
tests_unit_test_qcow2_writes_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_qcow2_SOURCES = tests/unit/test-qcow2.c tests/unit/qcow2-image.c tests/unit/qcow2-image.h
tests_unit_test_qcow2_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_ram_SOURCES = tests/unit/test-ram.c tests/unit/mem-node.c tests/unit/mem-node.h
tests_unit_test_ram_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_remote_status_SOURCES = tests/unit/test-remote-status.c
tests_unit_test_remote_status_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_remote_url_SOURCES = tests/unit/test-remote-url.c
tests_unit_test_remote_url_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_reopen_SOURCES = tests/unit/test-reopen.c
tests_unit_test_reopen_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_replica_SOURCES = tests/unit/test-replica.c tests/unit/mem-node.c tests/unit/mem-node.h
tests_unit_test_replica_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_scsi_commands_SOURCES = tests/unit/test-scsi-commands.c tests/unit/mem-node.c tests/unit/mem-node.h tests/unit/scsi-fake.c tests/unit/scsi-fake.h
tests_unit_test_scsi_commands_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_scsi_limits_SOURCES = tests/unit/test-scsi-limits.c tests/unit/mem-node.c tests/unit/mem-node.h tests/unit/scsi-fake.c tests/unit/scsi-fake.h
tests_unit_test_scsi_limits_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_scsi_opcodes_SOURCES = tests/unit/test-scsi-opcodes.c
tests_unit_test_scsi_opcodes_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_scsi_residuals_SOURCES = tests/unit/test-scsi-residuals.c tests/unit/mem-node.c tests/unit/mem-node.h tests/unit/scsi-fake.c tests/unit/scsi-fake.h
tests_unit_test_scsi_residuals_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_scsi_self_SOURCES = tests/unit/test-scsi-self.c tests/unit/mem-node.c tests/unit/mem-node.h tests/unit/scsi-fake.c tests/unit/scsi-fake.h
tests_unit_test_scsi_self_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_scsi_status_SOURCES = tests/unit/test-scsi-status.c tests/unit/mem-node.c tests/unit/mem-node.h tests/unit/scsi-fake.c tests/unit/scsi-fake.h
tests_unit_test_scsi_status_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_scsi_units_SOURCES = tests/unit/test-scsi-units.c tests/unit/mem-node.c tests/unit/mem-node.h tests/unit/scsi-fake.c tests/unit/scsi-fake.h
tests_unit_test_scsi_units_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_scsi_SOURCES = tests/unit/test-scsi.c tests/unit/mem-node.c tests/unit/mem-node.h tests/unit/scsi-fake.c tests/unit/scsi-fake.h
tests_unit_test_scsi_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_sendtargets_SOURCES = tests/unit/test-sendtargets.c
tests_unit_test_sendtargets_LDADD = $(CTEST_LIBS) libdiscovery.a $(LUN_LIBS)

tests_unit_test_sense_SOURCES = tests/unit/test-sense.c
tests_unit_test_sense_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_state_SOURCES = tests/unit/test-state.c
tests_unit_test_state_LDADD = $(CTEST_LIBS) libadmin.a libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS) $(JANSSON_LIBS)

tests_unit_test_stream_live_SOURCES = tests/unit/test-stream-live.c tests/unit/mem-node.c tests/unit/mem-node.h
tests_unit_test_stream_live_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_stream_need_SOURCES = tests/unit/test-stream-need.c tests/unit/mem-node.c tests/unit/mem-node.h
tests_unit_test_stream_need_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_stream_shapes_SOURCES = tests/unit/test-stream-shapes.c tests/unit/mem-node.c tests/unit/mem-node.h
tests_unit_test_stream_shapes_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_stream_SOURCES = tests/unit/test-stream.c tests/unit/mem-node.c tests/unit/mem-node.h
tests_unit_test_stream_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_text_SOURCES = tests/unit/test-text.c
tests_unit_test_text_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

tests_unit_test_throttle_bucket_SOURCES = tests/unit/test-throttle-bucket.c
tests_unit_test_throttle_bucket_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_throttle_SOURCES = tests/unit/test-throttle.c tests/unit/mem-node.c tests/unit/mem-node.h
tests_unit_test_throttle_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_upper_SOURCES = tests/unit/test-upper.c tests/unit/mem-node.c tests/unit/mem-node.h
tests_unit_test_upper_LDADD = $(CTEST_LIBS) $(LUN_LIBS)

tests_unit_test_utf8_SOURCES = tests/unit/test-utf8.c
tests_unit_test_utf8_LDADD = $(CTEST_LIBS) $(UTIL_LIBS)

tests_unit_test_util_SOURCES = tests/unit/test-util.c
tests_unit_test_util_LDADD = $(CTEST_LIBS) $(UTIL_LIBS)

tests_unit_test_vpd_SOURCES = tests/unit/test-vpd.c tests/unit/mem-node.c tests/unit/mem-node.h tests/unit/scsi-fake.c tests/unit/scsi-fake.h
tests_unit_test_vpd_LDADD = $(CTEST_LIBS) libtarget.a libdiscovery.a $(LUN_LIBS) $(ISAL_LIBS)

# What the judges and the bench run.
check_PROGRAMS += tests/tools/lunmap tests/tools/verify-writer
tests_tools_lunmap_SOURCES = tests/tools/lunmap.c
tests_tools_lunmap_LDADD = $(LIBISCSI_LIBS)
tests_tools_verify_writer_SOURCES = tests/tools/verify-writer.c tests/tools/model.c \
	tests/tools/model.h
tests_tools_verify_writer_LDADD = $(LIBISCSI_LIBS)

# The bench: load generators, and the least a server can do.
check_PROGRAMS += tests/bench/load tests/bench/load-nbd tests/bench/load-libiscsi \
	tests/bench/floor
tests_bench_load_SOURCES = tests/bench/load.c tests/bench/client.c tests/bench/client.h
tests_bench_load_LDADD = $(ISAL_LIBS) -lm
tests_bench_load_nbd_SOURCES = tests/bench/load-nbd.c tests/bench/client.c tests/bench/client.h
tests_bench_load_nbd_LDADD = -lm
tests_bench_load_libiscsi_SOURCES = tests/bench/load-libiscsi.c tests/bench/client.c \
	tests/bench/client.h
tests_bench_load_libiscsi_LDADD = $(LIBISCSI_LIBS) -lm
tests_bench_floor_SOURCES = tests/bench/floor.c

# Power cuts at every write, in memory.
check_PROGRAMS += tests/crash/crash
tests_crash_crash_SOURCES = tests/crash/changes.c \
	tests/crash/crash.c \
	tests/crash/cut.c \
	tests/crash/cut.h \
	tests/crash/image.c \
	tests/crash/image.h \
	tests/crash/origin.c \
	tests/crash/origin.h \
	tests/crash/qemu.c \
	tests/crash/qemu.h \
	tests/crash/record-node.c \
	tests/crash/record-node.h \
	tests/crash/rnd.h \
	tests/crash/structure.c \
	tests/crash/structure.h \
	tests/crash/versions.c \
	tests/crash/versions.h \
	tests/crash/workload.c \
	tests/crash/workload.h
tests_crash_crash_LDADD = $(LUN_LIBS)
tests_crash_crash_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=qfree_move -Wl,--wrap=co_qcow2_shrink -Wl,--wrap=co_qcow2_write_header_sector

# The same of whole chains, by names that lead into memory.
check_PROGRAMS += tests/crash/chains/chains
tests_crash_chains_chains_SOURCES = tests/crash/chains/chains.c \
	tests/crash/chains/live.c \
	tests/crash/chains/live.h \
	tests/crash/chains/vdisk.c \
	tests/crash/chains/vdisk.h \
	tests/crash/changes.c \
	tests/crash/cut.c \
	tests/crash/cut.h \
	tests/crash/qemu.c \
	tests/crash/qemu.h \
	tests/crash/record-node.c \
	tests/crash/record-node.h \
	tests/crash/rnd.h \
	tests/crash/structure.c \
	tests/crash/structure.h \
	tests/crash/versions.c \
	tests/crash/versions.h \
	tests/crash/workload.c \
	tests/crash/workload.h
tests_crash_chains_chains_LDADD = $(LUN_LIBS)
tests_crash_chains_chains_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=co_file_open -Wl,--wrap=co_file_set_cache -Wl,--wrap=file_node_is_device -Wl,--wrap=file_node_cache -Wl,--wrap=co_work -Wl,--wrap=access -Wl,--wrap=stat -Wl,--wrap=unlink -Wl,--wrap=renameat2 -Wl,--wrap=open -Wl,--wrap=fsync
