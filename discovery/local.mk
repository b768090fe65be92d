noinst_LIBRARIES += libdiscovery.a
libdiscovery_a_SOURCES = \
	discovery/chain-join.c \
	discovery/chain-join.h \
	discovery/chain-reader.c \
	discovery/chain-reader.h \
	discovery/isns-agent.c \
	discovery/isns.c \
	discovery/isns.h \
	discovery/sendtargets.c \
	discovery/sendtargets.h
