package async_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/async"
)

func ExampleMutex() {
	var mu async.Mutex
	balance := 0
	async.Run(func(cx *async.Context) error {
		var wg async.WaitGroup
		for range 100 {
			wg.Go(cx, func(cx *async.Context) error {
				if err := mu.Lock(cx); err != nil {
					return err
				}
				defer mu.Unlock()
				b := balance
				async.Yield(cx) // the mutex may be held while other tasks run
				balance = b + 1
				return nil
			})
		}
		return wg.Wait(cx)
	})
	fmt.Println(balance)
	// Output: 100
}

// Waiting for a mutex can have a time limit.
func ExampleMutex_Lock() {
	var mu async.Mutex
	mu.TryLock()
	async.Run(func(cx *async.Context) error {
		short, cancel := cx.WithTimeout(time.Millisecond)
		defer cancel()
		fmt.Println(mu.Lock(short))
		return nil
	})
	// Output: context deadline exceeded
}

// A goroutine shares a mutex with tasks.
func ExampleMutex_LockBlocking() {
	var mu async.Mutex
	counter := 0
	h := async.Go(async.Default(), func(cx *async.Context) error {
		if err := mu.Lock(cx); err != nil {
			return err
		}
		defer mu.Unlock()
		counter++
		return nil
	})
	if err := mu.LockBlocking(context.Background()); err == nil {
		counter++
		mu.Unlock()
	}
	h.JoinBlocking(context.Background())
	fmt.Println(counter)
	// Output: 2
}

// withdraw is a future written by hand that waits for a mutex.
type withdraw struct {
	mu      *async.Mutex
	balance *int
	lock    async.Future[async.None]
}

func (w *withdraw) Poll(cx *async.Context) (int, error) {
	if w.lock == nil {
		w.lock = w.mu.LockFuture()
	}
	if _, err := w.lock.Poll(cx); err != nil {
		return 0, err
	}
	defer w.mu.Unlock()
	*w.balance -= 10
	return *w.balance, nil
}

// Cancel is called if the task is cancelled. It gives up the place in the queue.
func (w *withdraw) Cancel() {
	if c, ok := w.lock.(interface{ Cancel() }); ok {
		c.Cancel()
	}
}

func ExampleMutex_LockFuture() {
	var mu async.Mutex
	balance := 100
	async.Run(func(cx *async.Context) error {
		h := async.SpawnFuture(cx, &withdraw{mu: &mu, balance: &balance})
		fmt.Println(h.Join(cx))
		return nil
	})
	// Output: 90 <nil>
}

// An upgradable reader looks, and writes only if it must. Meanwhile ordinary readers go on, and no
// other writer can have written between its look and its write.
func ExampleRWMutex() {
	var mu async.RWMutex
	cache := map[string]int{}
	lookUp := func(cx *async.Context, key string) (int, error) {
		if err := mu.ULock(cx); err != nil {
			return 0, err
		}
		defer mu.UUnlock()
		if v, ok := cache[key]; ok {
			return v, nil
		}
		v := len(key) // takes long
		if err := mu.Upgrade(cx); err != nil {
			return 0, err
		}
		cache[key] = v
		mu.DowngradeToU()
		return v, nil
	}
	async.Run(func(cx *async.Context) error {
		fmt.Println(lookUp(cx, "hello"))
		if err := mu.RLock(cx); err != nil {
			return err
		}
		defer mu.RUnlock()
		fmt.Println(cache)
		return nil
	})
	// Output:
	// 5 <nil>
	// map[hello:5]
}

func ExampleSemaphore() {
	const limit = 3
	s := async.NewSemaphore(limit)
	running, most := 0, 0
	async.Run(func(cx *async.Context) error {
		for range 10 {
			if err := s.Acquire(cx, 1); err != nil {
				return err
			}
			async.Go(async.Local(cx), func(cx *async.Context) error {
				defer s.Release(1)
				running++
				most = max(most, running)
				defer func() { running-- }()
				return async.Yield(cx) // other tasks run meanwhile
			})
		}
		return s.Acquire(cx, limit) // all tasks have ended
	})
	fmt.Println(most)
	// Output: 3
}

func ExampleCond() {
	var mu async.Mutex
	c := async.NewCond(&mu)
	var queue []string
	async.Run(func(cx *async.Context) error {
		consumer := async.Spawn(cx, func(cx *async.Context) (string, error) {
			if err := mu.Lock(cx); err != nil {
				return "", err
			}
			defer mu.Unlock()
			for len(queue) == 0 {
				if err := c.Wait(cx); err != nil {
					return "", err
				}
			}
			return queue[0], nil
		})
		async.Yield(cx)
		if err := mu.Lock(cx); err != nil {
			return err
		}
		queue = append(queue, "hello")
		mu.Unlock()
		c.Signal()
		fmt.Println(consumer.Join(cx))
		return nil
	})
	// Output: hello <nil>
}

func ExampleBarrier() {
	const parties = 4
	b := async.NewBarrier(parties)
	async.Run(func(cx *async.Context) error {
		var wg async.WaitGroup
		for range parties {
			wg.Go(cx, func(cx *async.Context) error {
				leader, err := b.Wait(cx)
				if leader {
					fmt.Println("all have come")
				}
				return err
			})
		}
		return wg.Wait(cx)
	})
	// Output: all have come
}

func ExampleWaitGroup() {
	async.Run(func(cx *async.Context) error {
		var wg async.WaitGroup
		results := make([]int, 5)
		for i := range results {
			wg.Go(cx, func(cx *async.Context) error {
				results[i] = i * i
				return nil
			})
		}
		if err := wg.Wait(cx); err != nil {
			return err
		}
		fmt.Println(results)
		return nil
	})
	// Output: [0 1 4 9 16]
}

// The first caller whose function succeeds makes the value for all callers.
func ExampleOnce() {
	var config async.Once[string]
	tries := 0
	load := func(cx *async.Context) (string, error) {
		if tries++; tries == 1 {
			return "", errors.New("not yet")
		}
		return "loaded", nil
	}
	async.Run(func(cx *async.Context) error {
		fmt.Println(config.Do(cx, load))
		fmt.Println(config.Do(cx, load))
		fmt.Println(config.Do(cx, load))
		fmt.Println(tries, "tries")
		return nil
	})
	// Output:
	//  not yet
	// loaded <nil>
	// loaded <nil>
	// 2 tries
}

func ExampleNotify() {
	var changed async.Notify
	value := ""
	async.Run(func(cx *async.Context) error {
		h := async.Go(async.Local(cx), func(cx *async.Context) error {
			for value == "" {
				if err := changed.Wait(cx); err != nil {
					return err
				}
			}
			fmt.Println(value)
			return nil
		})
		value = "hello"
		changed.NotifyOne() // not lost, whether or not the task waits already
		_, err := h.Join(cx)
		return err
	})
	// Output: hello
}
