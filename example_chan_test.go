package async_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"example.com/async"
)

func ExampleChan() {
	err := async.Run(func(cx *async.Context) error {
		jobs := async.NewChan[int](4)
		async.Go(cx, func(cx *async.Context) error {
			defer jobs.Close()
			for i := range 3 {
				if err := jobs.Send(cx, i); err != nil {
					return err
				}
			}
			return nil
		})
		for job, err := range jobs.All(cx) {
			if err != nil {
				return err
			}
			fmt.Println("job", job)
		}
		_, err := jobs.Recv(cx)
		return err
	})
	fmt.Println(err)
	// Output:
	// job 0
	// job 1
	// job 2
	// async: closed
}

// Goroutines and tasks talk to each other.
func ExampleChan_SendBlocking() {
	rt := newRuntime()
	questions, answers := async.NewChan[int](0), async.NewChan[int](0)
	async.Go(rt, func(cx *async.Context) error {
		for q, err := range questions.All(cx) {
			if err != nil {
				return err
			}
			if err := answers.Send(cx, q*q); err != nil {
				return err
			}
		}
		return nil
	})
	ctx := context.Background()
	for i := range 3 {
		questions.SendBlocking(ctx, i)
		fmt.Println(answers.RecvBlocking(ctx))
	}
	questions.Close()
	rt.Shutdown(ctx)
	// Output:
	// 0 <nil>
	// 1 <nil>
	// 4 <nil>
}

func ExampleChan_ForceSend() {
	latest := async.NewChan[string](1)
	latest.TrySend("old")
	old, displaced, err := latest.ForceSend("new")
	fmt.Println(old, displaced, err)
	fmt.Println(latest.TryRecv())
	// Output:
	// old true <nil>
	// new <nil>
}

func ExamplePermit() {
	async.Run(func(cx *async.Context) error {
		lines := async.NewChan[string](1)
		p, err := lines.Reserve(cx) // if cx is cancelled here, no line has been read yet
		if err != nil {
			return err
		}
		defer p.Release() // does nothing after Send
		line := "the next line of a file"
		p.Send(line)
		fmt.Println(lines.TryRecv())
		return nil
	})
	// Output: the next line of a file <nil>
}

// A hand-written state machine that receives: one future serves for all messages.
type adder struct {
	numbers *async.RecvFuture[int]
	sum     int
}

func (a *adder) Poll(cx *async.Context) (int, error) {
	for {
		n, err := a.numbers.Poll(cx)
		switch {
		case err == async.ErrClosed:
			return a.sum, nil
		case err != nil:
			return 0, err
		}
		a.sum += n
	}
}

func (a *adder) Cancel() { a.numbers.Cancel() }

func ExampleRecvFuture() {
	rt := newRuntime()
	numbers := async.NewChan[int](1)
	h := async.SpawnFuture(rt, &adder{numbers: numbers.RecvFuture()})
	ctx := context.Background()
	for i := range 10 {
		numbers.SendBlocking(ctx, i)
	}
	numbers.Close()
	fmt.Println(h.JoinBlocking(ctx))
	rt.Shutdown(ctx)
	// Output: 45 <nil>
}

func ExampleSendFuture() {
	async.Run(func(cx *async.Context) error {
		c := async.NewChan[string](1)
		c.TrySend("the only place")
		_, err := async.Await(cx, async.TimeoutFuture(c.SendFuture("too much"), time.Millisecond))
		fmt.Println(err)
		fmt.Println(c.TryRecv())
		fmt.Println(c.TryRecv())
		return nil
	})
	// Output:
	// context deadline exceeded
	// the only place <nil>
	//  async: empty
}

func ExampleOneshot() {
	async.Run(func(cx *async.Context) error {
		var answer async.Oneshot[int]
		async.Go(cx, func(cx *async.Context) error { return answer.Send(42) })
		fmt.Println(answer.Recv(cx))
		fmt.Println(answer.Send(43))
		return nil
	})
	// Output:
	// 42 <nil>
	// async: closed
}

func ExampleBroadcast() {
	async.Run(func(cx *async.Context) error {
		news := async.NewBroadcast[string](2)
		quick, slow := news.Subscribe(), news.Subscribe()
		for _, item := range []string{"one", "two", "three"} {
			news.Send(item)
			if item == "two" {
				fmt.Println(quick.Recv(cx))
			}
		}
		news.Close()
		for item, err := range slow.All(cx) {
			fmt.Println(item, err)
		}
		return nil
	})
	// Output:
	// one <nil>
	//  async: a slow subscriber has lost 1 messages
	// two <nil>
	// three <nil>
}

func ExampleSubscription() {
	async.Run(func(cx *async.Context) error {
		b := async.NewBroadcast[int](8)
		s := b.Subscribe()
		defer s.Close()
		fmt.Println(b.Send(1))
		fmt.Println(s.Recv(cx))
		return nil
	})
	// Output:
	// 1 <nil>
	// 1 <nil>
}

func ExampleLaggedError() {
	b := async.NewBroadcast[int](1)
	s := b.Subscribe()
	for i := range 5 {
		b.Send(i)
	}
	_, err := s.TryRecv()
	if lagged, ok := err.(*async.LaggedError); ok {
		fmt.Println(lagged.Missed)
	}
	fmt.Println(s.TryRecv())
	// Output:
	// 4
	// 4 <nil>
}

func ExampleWatch() {
	async.Run(func(cx *async.Context) error {
		level := async.NewWatch("info")
		w := level.Watch()
		fmt.Println(w.Get())
		level.Set("debug")
		level.Set("error")
		fmt.Println(w.Changed(cx)) // the last value, not all of them
		level.Close()
		fmt.Println(w.Changed(cx))
		return nil
	})
	// Output:
	// info
	// error <nil>
	//  async: closed
}

func ExampleWatcher() {
	w := async.NewWatch(1)
	r := w.Watch()
	fmt.Println(r.HasChanged())
	w.Update(func(n int) int { return n + 1 })
	fmt.Println(r.HasChanged(), r.Get(), r.HasChanged())
	// Output:
	// false
	// true 2 false
}

func ExampleSelect() {
	async.Run(func(cx *async.Context) error {
		jobs, quit := async.NewChan[string](1), async.NewChan[async.None](0)
		jobs.TrySend("a job")
		// The cases are used again in each round.
		job, stop, idle := async.OnRecv(jobs), async.OnRecv(quit), async.After(time.Hour)
		for {
			switch i, err := async.Select(cx, job, stop, idle); i {
			case 0:
				fmt.Println(job.Result())
				idle.Reset(time.Millisecond)
			case 1:
				return nil
			case 2:
				fmt.Println("idle")
				quit.Close()
				idle.Reset(time.Hour)
			default:
				return err // cx was cancelled
			}
		}
	})
	// Output:
	// a job <nil>
	// idle
}

func ExampleTrySelect() {
	async.Run(func(cx *async.Context) error {
		c := async.NewChan[int](1)
		recv, send := async.OnRecv(c), async.OnSend(c, 7)
		fmt.Println(async.TrySelect(cx, recv)) // there is no message
		i, _ := async.TrySelect(cx, send)
		fmt.Println(i, send.Err())
		fmt.Println(async.TrySelect(cx, recv))
		fmt.Println(recv.Result())
		return nil
	})
	// Output:
	// -1 async: pending: there is no result yet
	// 0 <nil>
	// 0 <nil>
	// 7 <nil>
}

func ExampleSelectInOrder() {
	async.Run(func(cx *async.Context) error {
		urgent, usual := async.NewChan[string](1), async.NewChan[string](1)
		usual.TrySend("usual")
		urgent.TrySend("urgent")
		first, second := async.OnRecv(urgent), async.OnRecv(usual)
		for range 2 {
			i, err := async.SelectInOrder(cx, first, second)
			fmt.Println(i, err)
		}
		return nil
	})
	// Output:
	// 0 <nil>
	// 1 <nil>
}

func ExampleOnFuture() {
	async.Run(func(cx *async.Context) error {
		answer := async.OnFuture(async.ReadyFuture("an answer"))
		i, _ := async.Select(cx, async.After(time.Hour), answer)
		fmt.Println(i)
		fmt.Println(answer.Result())
		return nil
	})
	// Output:
	// 1
	// an answer <nil>
}

func ExampleOnJoin() {
	async.Run(func(cx *async.Context) error {
		h := async.Spawn(cx, func(cx *async.Context) (int, error) { return 7, async.Sleep(cx, 5*time.Millisecond) })
		end, patience := async.OnJoin(h), async.After(time.Microsecond)
		for {
			if i, err := async.Select(cx, end, patience); i == 0 || err != nil {
				fmt.Println(end.Result())
				return err
			}
			patience.Reset(time.Hour) // the task goes on meanwhile
		}
	})
	// Output: 7 <nil>
}

func ExampleOnNext() {
	async.Run(func(cx *async.Context) error {
		var s async.Stream[int] = async.NewUnboundedChan[int]()
		s.(*async.Chan[int]).TrySend(1)
		next := async.OnNext(s)
		i, _ := async.Select(cx, next, async.After(time.Hour))
		fmt.Println(i)
		fmt.Println(next.Result())
		return nil
	})
	// Output:
	// 0
	// 1 <nil>
}

func ExampleRecvFrom() {
	async.Run(func(cx *async.Context) error {
		ch := make(chan string)
		go func() { ch <- "from a goroutine"; close(ch) }()
		fmt.Println(async.RecvFrom(cx, ch))
		_, err := async.RecvFrom(cx, ch)
		fmt.Println(err)
		return nil
	})
	// Output:
	// from a goroutine <nil>
	// async: closed
}

func ExampleFromGoChan() {
	async.Run(func(cx *async.Context) error {
		ch := make(chan int)
		go func() {
			defer close(ch)
			for i := range 3 {
				ch <- i
			}
		}()
		for v := range async.FromGoChan(cx, ch, 8).All(cx) {
			fmt.Println(v)
		}
		return nil
	})
	// Output:
	// 0
	// 1
	// 2
}

func ExampleWaitGroupDone() {
	async.Run(func(cx *async.Context) error {
		var wg sync.WaitGroup
		wg.Go(func() { fmt.Println("a goroutine") })
		err := async.WaitGroupDone(cx, &wg)
		fmt.Println("has ended", err)
		return nil
	})
	// Output:
	// a goroutine
	// has ended <nil>
}
