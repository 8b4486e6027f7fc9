//go:build !linux

package async

// spliceCopy copies nothing: other systems have no splice.
func spliceCopy(*Context, kernelEnd, kernelEnd, int64) (int64, error) { return 0, errNotInKernel }

// sendfileCopy copies nothing: only the sendfile of Linux is used.
func sendfileCopy(*Context, kernelEnd, *File, int64) (int64, error) { return 0, errNotInKernel }

// splicePipes is empty, since there is no splice.
type splicePipes struct{}

func (*splicePipes) close() {}
