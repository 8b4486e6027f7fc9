//go:build lockorder

package async

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// To lock a mutex against the order, or twice, panics. To lock it in the order does not panic, in
// whichever order other mutexes were unlocked before.
func TestLockOrderIsChecked(t *testing.T) {
	var outer lockOf[File]
	var inner, another lockOf[fanout]
	outer.Lock()
	inner.Lock()
	outer.Unlock()
	requireMisuse(t, misuse(outer.Lock), "File", "fanout", "lockOrder")
	requireMisuse(t, misuse(another.Lock), "fanout", "lockOrder")
	require.True(t, outer.TryLock(), "TryLock does not wait")
	outer.Unlock()
	inner.Unlock()
	outer.Lock()
	outer.Unlock()
	require.Empty(t, heldLocks.held[getg()])

	var unlisted lockOf[testing.T]
	outer.Lock()
	require.NotEmpty(t, misuse(unlisted.Lock))
	outer.Unlock()
}

// The check finds an edge of the order that is reversed. The test reverses one edge that the code
// uses.
func TestLockOrderReversed(t *testing.T) {
	was := slices.Clone(lockOrder)
	defer func() { lockOrder = was }()
	list, slot := slices.Index(lockOrder, "waitlist"), slices.Index(lockOrder, "fanout")
	lockOrder[list], lockOrder[slot] = lockOrder[slot], lockOrder[list]
	h := new(JoinHandle[int])
	h.waiters.join(newExternalWaker(func() {}))
	h.waiters.join(newExternalWaker(func() {}))
	var l waitlist
	text := misuse(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		h.waiters.fire(nil)
	})
	requireMisuse(t, text, "fanout", "waitlist")
}

// All mutexes are in the list, and the list has no other names.
func TestLockOrderIsComplete(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	field := regexp.MustCompile(`(?m)^\t\w+ +(?:lockOf\[(\w+)(?:\[\w+\])?\]|(sync\.(?:RW)?Mutex))`)
	found := []string{}
	for _, file := range files {
		if match, _ := filepath.Match("lockorder*", file); match || regexp.MustCompile(`_test\.go$`).MatchString(file) {
			continue
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range field.FindAllStringSubmatch(string(text), -1) {
			require.Empty(t, m[2], "a field of %s is a plain mutex", file)
			found = append(found, m[1])
		}
	}
	require.ElementsMatch(t, lockOrder, found)
}
