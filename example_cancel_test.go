package async_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/async"
)

func ExampleWithGroup() {
	err := async.Run(func(cx *async.Context) error {
		return async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
			async.Go(g, func(cx *async.Context) error {
				err := async.Sleep(cx, time.Hour)
				fmt.Println(err, "because:", cx.Cause())
				return err
			})
			async.Go(g, func(cx *async.Context) error {
				async.Sleep(cx, time.Millisecond)
				return errors.New("no such page")
			})
			return nil // both have ended when WithGroup returns
		})
	})
	fmt.Println(err)
	// Output:
	// context canceled because: no such page
	// no such page
}

func ExampleGroup_SetLimit() {
	async.Run(func(cx *async.Context) error {
		return async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
			g.SetLimit(2)
			for i := range 5 {
				async.Go(g, func(cx *async.Context) error { // waits while two are under way
					fmt.Println("page", i)
					return async.Yield(cx)
				})
			}
			return nil
		})
	})
	// Unordered output:
	// page 0
	// page 1
	// page 2
	// page 3
	// page 4
}

func ExampleGroup_Try() {
	async.Run(func(cx *async.Context) error {
		return async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
			g.SetLimit(1)
			first := async.Go(g, func(cx *async.Context) error { return async.Sleep(cx, time.Hour) })
			h := async.Go(g.Try(), async.Yield)
			_, err := h.TryJoin()
			fmt.Println(errors.Is(err, async.ErrBusy))
			first.Cancel()
			return nil
		})
	})
	// Output: true
}

// Results as they come. With KeepGoing the failure of one leaves the others alone.
func ExampleJoinSet() {
	async.Run(func(cx *async.Context) error {
		return async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
			g.KeepGoing()
			var set async.JoinSet[string]
			var answer async.Oneshot[string]
			set.Add(async.Spawn(g, answer.Recv))
			set.Add(async.Spawn(g, func(cx *async.Context) (string, error) {
				return "", errors.New("nothing to wait for")
			}))
			for h, err := range set.All(cx) {
				if err != nil {
					return err // cx has ended
				}
				fmt.Println(h.Join(cx))
				answer.Send("at last") // the first to begin, and the last to end
			}
			return nil
		})
	})
	// Output:
	//  nothing to wait for
	// at last <nil>
}

// For code of net/http or another library that has a context.Context of its own: tasks
// that it starts end with this context.
func ExampleRuntime_Under() {
	rt := newRuntime()
	defer rt.Shutdown(context.Background())
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond) // or r.Context()
	defer cancel()
	_, err := async.BlockOn(rt.Under(ctx), func(cx *async.Context) (async.None, error) {
		return async.None{}, async.Sleep(cx, time.Hour)
	})
	fmt.Println(err)
	// Output: context deadline exceeded
}

func ExampleContext_Under() {
	async.Run(func(cx *async.Context) error {
		var child *async.JoinHandle[async.None]
		parent := async.Go(cx, func(cx *async.Context) error {
			child = async.Go(cx.Under(cx), func(cx *async.Context) error { return async.Sleep(cx, time.Hour) })
			return nil
		})
		parent.Join(cx)
		_, err := child.Join(cx)
		fmt.Println(err)
		return nil
	})
	// Output: context canceled
}

func ExampleContext_WithCancelCause() {
	async.Run(func(cx *async.Context) error {
		child, cancel := cx.WithCancelCause()
		cancel(errors.New("the client has left"))
		fmt.Println(async.Sleep(child, time.Hour))
		fmt.Println(child.Cause())
		fmt.Println(context.Cause(child))
		return nil
	})
	// Output:
	// context canceled
	// the client has left
	// the client has left
}

func ExampleContext_WithoutCancel() {
	async.Run(func(cx *async.Context) error {
		h := async.Go(cx, func(cx *async.Context) error {
			defer func() {
				cx, cancel := cx.WithoutCancel().WithTimeout(time.Minute)
				defer cancel()
				err := async.Sleep(cx, time.Millisecond) // says goodbye
				fmt.Println("cleaned up:", err)
			}()
			return async.Sleep(cx, time.Hour)
		})
		async.Yield(cx) // it begins to sleep
		h.Cancel()
		_, err := h.Join(cx)
		fmt.Println(err)
		return nil
	})
	// Output:
	// cleaned up: <nil>
	// context canceled
}

// A value reaches the tasks that are spawned with its Context, at any depth.
func ExampleContext_WithValue() {
	type requestID struct{}
	async.Run(func(cx *async.Context) error {
		cx = cx.WithValue(requestID{}, 7)
		h := async.Go(cx, func(cx *async.Context) error {
			fmt.Println("request", cx.Value(requestID{}))
			return nil
		})
		_, err := h.Join(cx)
		return err
	})
	// Output: request 7
}

// eitherFuture is a future of the first result of two futures.
type eitherFuture struct {
	a, b async.Future[string]
	cx   *async.Context // of the last Poll
}

func (e *eitherFuture) Poll(cx *async.Context) (string, error) {
	e.cx = cx
	v, err := e.a.Poll(cx)
	if err != async.ErrPending {
		async.Cancel(cx, e.b)
		return v, err
	}
	if v, err = e.b.Poll(cx); err != async.ErrPending {
		async.Cancel(cx, e.a)
	}
	return v, err
}

func (e *eitherFuture) Cancel() {
	async.Cancel(e.cx, e.a)
	async.Cancel(e.cx, e.b)
}

// A future that is made of other futures gives up the futures that it no longer needs. If the future is
// a JoinHandle, this cancels its task.
func ExampleCancel() {
	async.Run(func(cx *async.Context) error {
		slow := async.Spawn(cx, func(cx *async.Context) (string, error) {
			return "slow", async.Sleep(cx, time.Hour)
		})
		fmt.Println(async.Await(cx, &eitherFuture{a: slow, b: async.ReadyFuture("quick")}))
		_, err := slow.Join(cx)
		fmt.Println(err)
		return nil
	})
	// Output:
	// quick <nil>
	// context canceled
}
