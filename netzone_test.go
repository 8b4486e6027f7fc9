package async

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// A zone that is in the table is not asked for again until the table is old. A zone that is not in
// the table is asked for.
func TestZonesAreRemembered(t *testing.T) {
	defer zonesKnown.Store(nil)
	lo := udpLoopback(t)
	known := func(age int64) *zoneTable {
		table := &zoneTable{nanos() - age, map[string]uint32{"gone": 7777}, map[uint32]string{7777: "gone"}}
		zonesKnown.Store(table)
		return table
	}
	gone := func() (string, error) {
		_, err := zoneIndex("gone")
		return zoneName(7777), err
	}

	table := known(int64(zonesLast) / 2)
	name, err := gone()
	require.NoError(t, err)
	require.Equal(t, "gone", name)
	require.Same(t, table, zonesKnown.Load())

	known(int64(zonesLast))
	name, err = gone()
	var unknown *net.AddrError
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, "gone", unknown.Addr)
	require.Equal(t, "7777", name)

	for name, find := range map[string]func(){
		"index": func() {
			index, err := zoneIndex(lo.Name)
			require.NoError(t, err)
			require.EqualValues(t, lo.Index, index)
		},
		"name": func() { require.Equal(t, lo.Name, zoneName(uint32(lo.Index))) },
	} {
		table := known(0)
		find()
		asked := zonesKnown.Load()
		require.NotSame(t, table, asked, name)
		find()
		require.Same(t, asked, zonesKnown.Load(), name)
	}

	// For a number and for an empty zone the system is not asked.
	table = known(0)
	index, err := zoneIndex("12")
	require.NoError(t, err)
	require.EqualValues(t, 12, index)
	index, err = zoneIndex("")
	require.NoError(t, err)
	require.Zero(t, index)
	require.Empty(t, zoneName(0))
	require.Same(t, table, zonesKnown.Load())
}
