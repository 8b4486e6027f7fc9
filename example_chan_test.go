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

// A goroutine sends questions to a task and receives the answers.
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

// adder is a future written by hand that receives. One RecvFuture serves for all messages.
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

// The cases of a Select may be made at run time, here one for each channel of a slice.
func ExampleCase() {
	async.Run(func(cx *async.Context) error {
		inputs := []*async.Chan[string]{async.NewChan[string](1), async.NewChan[string](1)}
		var cases []async.Case
		for _, input := range inputs {
			cases = append(cases, async.OnRecv(input))
		}
		if err := inputs[1].Send(cx, "hello"); err != nil {
			return err
		}
		i, err := async.Select(cx, cases...)
		if err != nil {
			return err
		}
		message, err := cases[i].(*async.RecvCase[string]).Result()
		fmt.Println(i, message, err)
		return nil
	})
	// Output: 1 hello <nil>
}

// Two channels are received from until both are closed. The case of a nil channel never happens.
func ExampleOnRecv() {
	async.Run(func(cx *async.Context) error {
		odd, even := async.NewChan[int](2), async.NewChan[int](2)
		for n := range 4 {
			to := even
			if n%2 == 1 {
				to = odd
			}
			if err := to.Send(cx, n); err != nil {
				return err
			}
		}
		odd.Close()
		even.Close()
		sum := 0
		cases := []*async.RecvCase[int]{async.OnRecv(odd), async.OnRecv(even)}
		for open := 2; open > 0; {
			i, err := async.Select(cx, cases[0], cases[1])
			if err != nil {
				return err
			}
			n, err := cases[i].Result()
			if err == async.ErrClosed {
				cases[i] = async.OnRecv[int](nil)
				open--
			}
			sum += n
		}
		fmt.Println(sum)
		return nil
	})
	// Output: 6
}

// A producer sends until it is stopped.
func ExampleOnSend() {
	async.Run(func(cx *async.Context) error {
		numbers, stop := async.NewChan[int](0), async.NewChan[async.None](0)
		producer := async.Spawn(cx, func(cx *async.Context) (string, error) {
			send, stopped := async.OnSend(numbers, 0), async.OnRecv(stop)
			for n := 1; ; n++ {
				switch i, err := async.Select(cx, send, stopped); i {
				case 0:
					send.Reset(n) // the next message of the same case
				case 1:
					return "stopped", nil
				default:
					return "", err // cx was cancelled
				}
			}
		})
		for range 3 {
			fmt.Println(numbers.Recv(cx))
		}
		stop.Close()
		fmt.Println(producer.Join(cx))
		return nil
	})
	// Output:
	// 0 <nil>
	// 1 <nil>
	// 2 <nil>
	// stopped <nil>
}

func ExampleAfter() {
	async.Run(func(cx *async.Context) error {
		answers := async.NewChan[string](0) // no message arrives
		answer, late := async.OnRecv(answers), async.After(time.Millisecond)
		fmt.Println(async.Select(cx, answer, late))
		fmt.Println(async.TrySelect(cx, late)) // the time has passed, until Reset
		late.Reset(time.Hour)
		fmt.Println(async.TrySelect(cx, late))
		return nil
	})
	// Output:
	// 1 <nil>
	// 0 <nil>
	// -1 async: pending: there is no result yet
}

// A Select with a time limit. When it is given up, no message is lost.
func ExampleSelectFuture() {
	async.Run(func(cx *async.Context) error {
		numbers, texts := async.NewChan[int](1), async.NewChan[string](1)
		number, text := async.OnRecv(numbers), async.OnRecv(texts)
		_, err := async.Await(cx, async.TimeoutFuture(async.SelectFuture(number, text), time.Millisecond))
		fmt.Println(err)
		texts.TrySend("late")
		i, err := async.Await(cx, async.SelectFuture(number, text))
		if err != nil {
			return err
		}
		message, err := text.Result()
		fmt.Println(i, message, err)
		return nil
	})
	// Output:
	// context deadline exceeded
	// 1 late <nil>
}

func ExampleSelectInOrderFuture() {
	async.Run(func(cx *async.Context) error {
		urgent, usual := async.NewChan[string](1), async.NewChan[string](1)
		usual.TrySend("usual")
		urgent.TrySend("urgent")
		first, second := async.OnRecv(urgent), async.OnRecv(usual)
		fmt.Println(async.Await(cx, async.SelectInOrderFuture(first, second)))
		fmt.Println(first.Result())
		return nil
	})
	// Output:
	// 0 <nil>
	// urgent <nil>
}

func ExampleSendTo() {
	async.Run(func(cx *async.Context) error {
		ch, received := make(chan string), make(chan string)
		go func() { received <- "a goroutine has received " + <-ch }()
		if err := async.SendTo(cx, ch, "a message"); err != nil {
			return err
		}
		fmt.Println(async.RecvFrom(cx, received))
		close(ch)
		fmt.Println(async.SendTo(cx, ch, "another message"))
		return nil
	})
	// Output:
	// a goroutine has received a message <nil>
	// async: closed
}

// A task waits for goroutines, but not for longer than an hour.
func ExampleWaitGroupDoneFuture() {
	async.Run(func(cx *async.Context) error {
		var wg sync.WaitGroup
		sum := 0
		wg.Go(func() { sum = 1 + 2 })
		done := async.OnFuture(async.WaitGroupDoneFuture(&wg))
		i, err := async.Select(cx, done, async.After(time.Hour))
		if i == 0 {
			fmt.Println(sum)
		}
		return err
	})
	// Output: 3
}

func ExampleContextDone() {
	async.Run(func(cx *async.Context) error {
		ctx, cancel := context.WithCancel(context.Background())
		go cancel()
		err := async.ContextDone(cx, ctx) // nil: the wait has not failed
		fmt.Println(err, ctx.Err())
		return nil
	})
	// Output: <nil> context canceled
}

// A task receives messages until a context of other code ends.
func ExampleContextDoneFuture() {
	async.Run(func(cx *async.Context) error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		jobs := async.NewChan[int](2)
		jobs.TrySend(1)
		jobs.TrySend(2)
		job := async.OnRecv(jobs)
		for {
			// A case of OnFuture is for one Select. The jobs are first: none of them is left over.
			switch i, err := async.SelectInOrder(cx, job, async.OnFuture(async.ContextDoneFuture(ctx))); i {
			case 0:
				n, _ := job.Result()
				if fmt.Println("job", n); n == 2 {
					cancel()
				}
			case 1:
				fmt.Println(ctx.Err())
				return nil
			default:
				return err // cx was cancelled
			}
		}
	})
	// Output:
	// job 1
	// job 2
	// context canceled
}
