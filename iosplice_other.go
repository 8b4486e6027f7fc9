//go:build !linux

package async

func spliceCopy(*Context, kernelEnd, kernelEnd, int64) (int64, error) { return 0, errNotInKernel }

func sendfileCopy(*Context, kernelEnd, *File, int64) (int64, error) { return 0, errNotInKernel }

// splicePipes is empty: these systems do not splice.
type splicePipes struct{}

func (*splicePipes) close() {}
