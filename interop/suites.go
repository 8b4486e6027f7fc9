//go:build suites

package interop

// TestSuites runs the tests of these packages. The imports keep the modules of the packages in
// go.mod.
import (
	_ "github.com/coder/websocket"
	_ "github.com/emersion/go-smtp"
	_ "github.com/hashicorp/yamux"
	_ "github.com/miekg/dns"
	_ "golang.org/x/net/http2"
	_ "golang.org/x/net/http2/h2c"
	_ "golang.org/x/net/icmp"
	_ "golang.org/x/net/ipv4"
	_ "golang.org/x/net/ipv6"
	_ "golang.org/x/net/nettest"
	_ "golang.org/x/net/netutil"
	_ "golang.org/x/net/proxy"
	_ "golang.org/x/net/quic"
	_ "golang.org/x/net/websocket"
)
