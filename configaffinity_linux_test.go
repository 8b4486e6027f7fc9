package async

import (
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// allowedCPUs returns the processors that the calling thread may run on.
func allowedCPUs(t testing.TB) (cpus []int) {
	var set unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &set))
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

func TestAffinity(t *testing.T) {
	all := allowedCPUs(t)
	first, last := all[:1], all[len(all)-1:]
	var mu sync.Mutex
	got := map[int][]int{}
	newTestRuntime(t, Config{
		Tuning: Tuning{Affinity: [][]int{first, nil, last, {first[0], last[0]}}, Hooks: Hooks{WorkerStart: func(w int) {
			mu.Lock()
			defer mu.Unlock()
			got[w] = allowedCPUs(t)
		}}},
	})
	eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 4 })
	require.Equal(t, first, got[0])
	require.Equal(t, all, got[1])
	require.Equal(t, last, got[2])
	require.Subset(t, got[3], append(first, last...))
	require.Equal(t, all, allowedCPUs(t), "other threads of the program are bound too")
}

// A processor that does not exist is an error of New, which leaves nothing behind.
func TestAffinityNonsense(t *testing.T) {
	newTestRuntime(t, Config{Workers: 1})
	for _, cpu := range []int{-1, 1 << 20} {
		_, err := New(Config{Tuning: Tuning{Affinity: [][]int{nil, {cpu}}}})
		require.ErrorContains(t, err, "async: Config.Tuning.Affinity names processor")
	}
	_, err := New(Config{Tuning: Tuning{Affinity: [][]int{{}, nil}}})
	require.ErrorIs(t, err, syscall.EINVAL, "none at all")
	require.ErrorContains(t, err, "async: Config.Tuning.Affinity []")
}
