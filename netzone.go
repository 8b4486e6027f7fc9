package async

import (
	"net"
	"strconv"
	"sync/atomic"
	"time"
)

// zoneTable is the network interfaces, which IPv6 calls zones, as they were at a
// time. To ask for them takes several system calls, and addresses of messages have
// zones, so that a table is used for a while. If a zone is not in it, the system is
// asked again.
type zoneTable struct {
	at    int64
	index map[string]uint32
	name  map[uint32]string
}

// zonesLast is how long a renamed interface may go by its old name; package net
// has the same.
const zonesLast = time.Minute

var zonesKnown atomic.Pointer[zoneTable]

// zoneIndex returns the number of an IPv6 zone, which is the name or the
// number of a network interface.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	index, ok := findZone(zone, func(t *zoneTable) map[string]uint32 { return t.index })
	if !ok {
		return 0, &net.AddrError{Err: "no such network interface", Addr: zone}
	}
	return index, nil
}

// zoneName returns the name of the zone with this number; the number itself, if the
// interface has no name anymore.
func zoneName(index uint32) string {
	if index == 0 {
		return ""
	}
	name, ok := findZone(index, func(t *zoneTable) map[uint32]string { return t.name })
	if !ok {
		return strconv.FormatUint(uint64(index), 10)
	}
	return name
}

func findZone[K comparable, V any](key K, in func(*zoneTable) map[K]V) (v V, ok bool) {
	if t := zonesKnown.Load(); t != nil && nanosHere()-t.at < int64(zonesLast) {
		if v, ok = in(t)[key]; ok {
			return v, true
		}
	}
	t := readZones()
	zonesKnown.Store(t)
	v, ok = in(t)[key]
	return v, ok
}

// readZones asks the system. If that fails no zone is known.
func readZones() *zoneTable {
	ifis, _ := net.Interfaces()
	t := &zoneTable{nanosHere(), make(map[string]uint32, len(ifis)), make(map[uint32]string, len(ifis))}
	for _, ifi := range ifis {
		t.index[ifi.Name] = uint32(ifi.Index)
		t.name[uint32(ifi.Index)] = ifi.Name
	}
	return t
}
