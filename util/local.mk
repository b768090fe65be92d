noinst_LIBRARIES += libutil.a
libutil_a_SOURCES = \
	util/bitmap.c \
	util/bitmap.h \
	util/bufpool.c \
	util/bufpool.h \
	util/bus-guard.c \
	util/bus-guard.h \
	util/byteorder.h \
	util/co-path.c \
	util/co-path.h \
	util/coroutine.c \
	util/coroutine.h \
	util/cow-wire.c \
	util/cow-wire.h \
	util/error.c \
	util/error.h \
	util/list.h \
	util/log-levels.c \
	util/log.c \
	util/log.h \
	util/loop.c \
	util/loop.h \
	util/size.c \
	util/size.h \
	util/utf8.c \
	util/utf8.h \
	util/uuid.c \
	util/uuid.h \
	util/workers.c \
	util/workers.h
