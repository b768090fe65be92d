# Unit tests: googletest behind a thin C wrapper. A test links its room and the rooms below, so a
# call upwards does not link.
check_LIBRARIES += libctest.a
libctest_a_SOURCES = tests/unit/gtest-main.cc tests/unit/ctest.h
CTEST_LIBS = libctest.a $(GTEST_LIBS) -lstdc++ -lm

if HAVE_GTEST
UNIT_TESTS += tests/unit/test-util
endif

tests_unit_test_util_SOURCES = tests/unit/test-util.c
tests_unit_test_util_LDADD = $(CTEST_LIBS) $(UTIL_LIBS)
