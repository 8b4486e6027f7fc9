package async

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// dnsServer is a name server on the loopback interface, for tests.
type dnsServer struct {
	addr    string
	queries atomic.Int32
	silent  bool // it receives queries and does not answer
	records map[string][]dnsRecord

	mu    sync.Mutex
	asked []string // see questions
}

// questions returns the questions that the server got since the last call, sorted and without
// repetitions: a resolver may ask again.
func (s *dnsServer) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	slices.Sort(asked)
	return slices.Compact(asked)
}

type dnsRecord struct {
	kind uint16
	data []byte
}

const (
	dnsA     = 1
	dnsNS    = 2
	dnsCNAME = 5
	dnsPTR   = 12
	dnsMX    = 15
	dnsTXT   = 16
	dnsAAAA  = 28
	dnsSRV   = 33
)

// dnsName encodes a name.
func dnsName(name string) (b []byte) {
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0)
}

func dnsUint16(vs ...uint16) (b []byte) {
	for _, v := range vs {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

func dnsAddrs(addrs ...string) (rs []dnsRecord) {
	for _, a := range addrs {
		ip, kind := netip.MustParseAddr(a), uint16(dnsA)
		if ip.Is6() {
			kind = dnsAAAA
		}
		rs = append(rs, dnsRecord{kind, ip.AsSlice()})
	}
	return rs
}

func newDNS(t testing.TB, silent bool, records map[string][]dnsRecord) *dnsServer {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &dnsServer{addr: pc.LocalAddr().String(), silent: silent, records: records}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(p)
			if err != nil {
				return
			}
			a := s.answer(p[:n])
			s.queries.Add(1)
			if !s.silent {
				pc.WriteTo(a, from)
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return s
}

// answer answers a query of one question.
func (s *dnsServer) answer(q []byte) []byte {
	end, name := 12, ""
	for q[end] != 0 {
		n := int(q[end])
		name += string(q[end+1:end+1+n]) + "."
		end += n + 1
	}
	end += 5
	question, kind := q[12:end], binary.BigEndian.Uint16(q[end-4:])
	s.mu.Lock()
	s.asked = append(s.asked, fmt.Sprint(name, " ", kind))
	s.mu.Unlock()
	rs, known := s.records[strings.ToLower(name)]
	code := uint16(0)
	if !known {
		code = 3
	}
	var found []byte
	count := uint16(0)
	for _, r := range rs {
		if r.kind == kind || r.kind == dnsCNAME {
			found = append(found, dnsUint16(0xc00c, r.kind, 1, 0, 60, uint16(len(r.data)))...)
			found = append(found, r.data...)
			count++
		}
	}
	a := append([]byte{}, q[:2]...)
	a = append(a, dnsUint16(0x8180|code, 1, count, 0, 0)...)
	return append(append(a, question...), found...)
}

// dial connects a resolver to s instead of the servers of the system.
func (s *dnsServer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Resolver: new(net.Resolver)} // otherwise it uses net.DefaultResolver, see asDefault
	return d.DialContext(ctx, "udp", s.addr)
}

func (s *dnsServer) resolver() *Resolver { return &Resolver{PreferGo: true, Dial: s.dial} }

// asDefault makes resolvers that ask s the default resolvers of this package and of package net,
// until the test ends.
func (s *dnsServer) asDefault(t testing.TB) {
	own, std := DefaultResolver, net.DefaultResolver
	DefaultResolver, net.DefaultResolver = s.resolver(), &net.Resolver{PreferGo: true, Dial: s.dial}
	t.Cleanup(func() { DefaultResolver, net.DefaultResolver = own, std })
}
