package async

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A build for a system without epoll and kqueue fails with one message, which names the systems on
// which the package runs. It does not fail with a list of undefined names.
func TestOtherSystems(t *testing.T) {
	for _, system := range []string{"windows/amd64", "plan9/amd64", "js/wasm", "solaris/amd64"} {
		goos, goarch, _ := strings.Cut(system, "/")
		cmd := exec.Command("go", "build", ".")
		cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		require.Error(t, err, system)
		require.Regexp(t, `^package example.com/async\n\timports example.com/async/internal/runs_on_linux_macos_and_bsd: build constraints exclude all Go files in .*\n$`, string(out), system)
	}
}
