//go:build !linux

package async

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAffinityUnsupported(t *testing.T) {
	newTestRuntime(t, Config{Workers: 1})
	_, err := New(Config{Tuning: Tuning{Affinity: [][]int{{0}}}})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	rt := newTestRuntime(t, Config{Tuning: Tuning{Affinity: [][]int{nil}}})
	require.Len(t, rt.workers, 1)
}
