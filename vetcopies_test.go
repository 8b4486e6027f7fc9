package async

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// go vet finds copies of what must not be copied.
func TestVetFindsCopies(t *testing.T) {
	out, err := exec.Command("go", "vet", "./testdata/nocopy").CombinedOutput()
	require.Error(t, err)
	for _, name := range []string{"Mutex", "RWMutex", "Semaphore", "Cond", "Barrier", "WaitGroup", "Once[int]", "Notify",
		"Chan[int]", "RecvFuture[int]", "SendFuture[int]", "RecvCase[int]", "SendCase[int]", "TimerCase",
		"Oneshot[int]", "Broadcast[int]", "Subscription[int]", "Watch[int]", "Watcher[int]",
		"JoinSet[int]", "TaskLocal[int]", "Resolver"} {
		require.Contains(t, string(out), "passes lock by value: example.com/async."+name+" contains")
	}
}
