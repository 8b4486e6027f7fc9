package async

import (
	"net"
	"strconv"
	"sync/atomic"
	"time"
)

// zoneTable is the network interfaces, which IPv6 calls zones, as they were at one time. To ask the
// system for them takes several system calls, and many addresses of messages have zones. So a table
// is used for a while. If a zone is not in the table, the system is asked again.
type zoneTable struct {
	at    int64 // when the system was asked
	index map[string]uint32
	name  map[uint32]string
}

// zonesLast is how long a table is used. For that time a renamed interface may still have its old
// name. Package net has the same limit.
const zonesLast = time.Minute

// zonesKnown is the latest table. Two callers may read a table at the same time; either may stay.
var zonesKnown atomic.Pointer[zoneTable]

// zoneIndex returns the number of an IPv6 zone, which is the name or the number of a network
// interface. The empty zone has the number 0. If no interface has this name, the error is a
// *net.AddrError. A number is not checked.
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

// zoneName returns the name of the zone with this number. If the interface no longer exists, the
// name is the number.
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

// findZone looks a zone up in the map that in selects, of the present table or of a new one.
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

// readZones asks the system. If that fails, the table is empty.
func readZones() *zoneTable {
	ifis, _ := net.Interfaces()
	t := &zoneTable{nanosHere(), make(map[string]uint32, len(ifis)), make(map[uint32]string, len(ifis))}
	for _, ifi := range ifis {
		t.index[ifi.Name] = uint32(ifi.Index)
		t.name[uint32(ifi.Index)] = ifi.Name
	}
	return t
}
