package async

import (
	"context"
	"net"
	"reflect"
	"sync"
)

// This file calls the hooks that httptrace.WithClientTrace has put into a context. It stores the
// hooks of package net there as a pointer to a struct of functions, under a key of the package
// internal/nettrace.
//
//   - A look-up is done by package net. It gets a context with the same values, and package net
//     calls its hooks.
//   - A dial is done by this package. It finds the struct by the key for which package net asks a
//     context, and reads the functions ConnectStart and ConnectDone by reflection.
//
// Refused: to import httptrace. It imports crypto/tls, which makes a program 1.2 MB larger. And
// httptrace can add hooks to a context but not remove any, which withoutConnectHooks must do.
//
// If a later version of Go stores the hooks in another way, the hooks for connections are not
// called. TestDialWithoutHooks fails then.

// connectHooks are the hooks ConnectStart and ConnectDone of one dial. Either of them may be nil.
// The methods may be called with a nil *connectHooks, and do nothing then.
type connectHooks struct {
	start func(network, address string)
	done  func(network, address string, err error)
	won   Conn // the result of the dial, until the dial has returned it: a hook may panic before
}

// connectHooks returns the hooks for a dial with cx, or nil if there are none.
func (cx *Context) connectHooks() *connectHooks {
	c := cx.t.cancelGroup()
	if c == nil {
		return nil
	}
	trace := netTrace(c.value)
	if !trace.IsValid() {
		return nil
	}
	h := new(connectHooks)
	h.start, _ = hookOf(trace, "ConnectStart").(func(network, address string))
	h.done, _ = hookOf(trace, "ConnectDone").(func(network, address string, err error))
	return h
}

// begun calls ConnectStart.
func (h *connectHooks) begun(network string, addr net.Addr) {
	if h != nil && h.start != nil {
		h.start(network, addr.String())
	}
}

// ended calls ConnectDone.
func (h *connectHooks) ended(network string, addr net.Addr, err error) {
	if h != nil && h.done != nil {
		h.done(network, addr.String(), err)
	}
}

// keep notes the connection that the dial will return. The dial calls it with nil when it returns.
func (h *connectHooks) keep(c Conn) {
	if h != nil {
		h.won = c
	}
}

// drop closes the connection that was kept, because the dial will not return it.
func (h *connectHooks) drop() {
	if h != nil && h.won != nil {
		h.won.Close()
		h.won = nil
	}
}

// withoutConnectHooks returns ctx without ConnectStart and ConnectDone. The other hooks stay.
func withoutConnectHooks(ctx context.Context) context.Context {
	trace := netTrace(ctx.Value)
	if !trace.IsValid() {
		return ctx
	}
	lookups := reflect.New(trace.Type())
	lookups.Elem().Set(trace)
	for _, name := range []string{"ConnectStart", "ConnectDone"} {
		if f := lookups.Elem().FieldByName(name); f.IsValid() {
			f.SetZero()
		}
	}
	return context.WithValue(ctx, netTraceKey(), lookups.Interface())
}

// netTrace returns the struct of hooks among the values of a context. It returns the zero Value if
// there is none.
func netTrace(value func(key any) any) reflect.Value {
	key := netTraceKey()
	if key == nil {
		return reflect.Value{}
	}
	trace := reflect.ValueOf(value(key))
	if trace.Kind() != reflect.Pointer || trace.Type().Elem().Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return trace.Elem() // invalid if the pointer is nil
}

// hookOf returns the hook of that name, or nil if the struct has no such field.
func hookOf(trace reflect.Value, name string) any {
	if f := trace.FieldByName(name); f.IsValid() {
		return f.Interface()
	}
	return nil
}

// netTraceKey returns the key of the hooks, or nil if package net asks for no such key. To learn
// the key it begins a dial, for which package net asks the context. That dial fails before it does
// anything, because no network has the empty name.
var netTraceKey = sync.OnceValue(func() any {
	asked := &askedKey{Context: context.Background()}
	new(net.Dialer).DialContext(asked, "", "")
	return asked.key
})

// askedKey is a context that records the key of the hooks when it is asked for the value.
type askedKey struct {
	context.Context
	key any
}

func (a *askedKey) Value(key any) any {
	if t := reflect.TypeOf(key); t.PkgPath() == "internal/nettrace" && t.Name() == "TraceKey" {
		a.key = key
	}
	return nil
}
