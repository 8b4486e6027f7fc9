//go:build servers

package interop

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"example.com/async"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// address returns the address of a server that servers.sh has started.
func address(t *testing.T, variable string) string {
	t.Helper()
	addr := os.Getenv(variable)
	require.NotEmpty(t, addr, "%s is not set: run this by servers.sh", variable)
	return addr
}

func TestRedis(t *testing.T) {
	rt := newRuntime(t)
	client := newRedisClient(rt, address(t, "INTEROP_REDIS"))
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(t, client.FlushDB(ctx).Err())

	sub := client.Subscribe(ctx, "news")
	defer sub.Close()
	_, err := sub.Receive(ctx)
	require.NoError(t, err)

	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for n := range 20 {
				key, value := fmt.Sprintf("%d/%d", i, n), string(make([]byte, n*1000))
				if err := client.Set(ctx, key, value, 0).Err(); err != nil {
					t.Error(err)
				}
				if got, err := client.Get(ctx, key).Result(); err != nil || got != value {
					t.Errorf("got %d bytes and %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, client.Publish(ctx, "news", "hello").Err())
	m, err := sub.ReceiveMessage(ctx)
	require.NoError(t, err)
	require.Equal(t, "hello", m.Payload)

	// A command that blocks for longer than its deadline ends at the deadline.
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = client.BLPop(short, 0, "nothing").Result()
	require.Error(t, err)
	require.NoError(t, client.Ping(ctx).Err())
}

// Two clients in tasks: redigo, which starts no goroutine, and go-redis, which needs the form for
// goroutines.
func TestRedisInTasks(t *testing.T) {
	rt := newRuntime(t)
	addr := address(t, "INTEROP_REDIS")
	client := newRedisClient(rt, addr)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(t, client.Del(ctx, "count").Err())
	const tasks = 16
	var handles []*async.JoinHandle[int]
	for range tasks {
		handles = append(handles, async.Spawn(rt, func(cx *async.Context) (int, error) {
			return increment(cx, addr, "count")
		}))
	}
	seen := map[int]bool{}
	for _, h := range handles {
		n, err := h.JoinBlocking(ctx)
		require.NoError(t, err)
		seen[n] = true
	}
	require.Len(t, seen, tasks)
	got, err := async.Spawn(rt, func(cx *async.Context) (string, error) {
		return fetch(cx, client, "count")
	}).JoinBlocking(ctx)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(tasks), got)

	// Cancelling the task cancels the call of the client.
	waits := async.Go(rt, func(cx *async.Context) error {
		_, err := async.Await(cx, async.SpawnBlocking(cx, func() ([]string, error) {
			return client.BLPop(cx, 0, "nothing").Result()
		}))
		return err
	})
	waits.Cancel()
	_, err = waits.JoinBlocking(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestPostgreSQL(t *testing.T) {
	rt := newRuntime(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	pool, err := newPostgresPool(ctx, rt, address(t, "INTEROP_POSTGRES"))
	require.NoError(t, err)
	defer pool.Close()
	_, err = pool.Exec(ctx, `create table if not exists interop (i int, s text)`)
	require.NoError(t, err)
	_, err = pool.Exec(ctx, `truncate interop`)
	require.NoError(t, err)
	var rows [][]any
	for i := range 2000 {
		rows = append(rows, []any{i, fmt.Sprint("row ", i)})
	}
	n, err := pool.CopyFrom(ctx, pgx.Identifier{"interop"}, []string{"i", "s"}, pgx.CopyFromRows(rows))
	require.NoError(t, err)
	require.EqualValues(t, len(rows), n)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 20 {
				var s string
				err := pool.QueryRow(ctx, `select s from interop where i = $1`, i*20+j).Scan(&s)
				if err != nil || s != fmt.Sprint("row ", i*20+j) {
					t.Errorf("got %q and %v", s, err)
				}
			}
		})
	}
	wg.Wait()

	// A query that is cancelled: pgx sets a deadline in the past to end its Read.
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = pool.Exec(short, `select pg_sleep(30)`)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, pool.Ping(ctx))
}
