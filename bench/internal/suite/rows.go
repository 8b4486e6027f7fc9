package suite

import (
	"fmt"
	"slices"

	"example.com/async/bench/internal/work"
)

// A Kind tells how a row is measured.
type Kind int

const (
	Work    Kind = iota // a workload in a process of its own
	Echo                // an echo server under load
	Idle                // an echo server with idle connections
	Profile             // like Echo, with perf record
	Counts              // like Echo, with perf stat
)

// A Metric is one figure of a row. A smaller value is better, unless More is set.
type Metric struct {
	Key   string  // key in the raw rows
	Title string  // title in tables, with the unit
	Scale float64 // factor from the raw value to the value in tables
	More  bool    // a larger value is better
	Ratio bool    // subjects are compared by this metric; they are always compared by the first metric

	// Samples, if not empty, is the key of the number of samples from which the figure is computed.
	// Figures from too few samples are not compared.
	Samples string
}

// A Row compares subjects under one load.
type Row struct {
	Name     string
	Section  string
	Title    string
	Kind     Kind
	Baseline string   // the subject to which all others have a ratio
	Subjects []string // all subjects, the baseline included
	Metrics  []Metric // the first metric is the subject of the row
	Quick    bool     // the row is part of the small table
	Rounds   int      // the largest number of rounds; 0 means all rounds of the run

	Workload string  // Work
	Rate     float64 // Echo: requests per second; 0 is the closed loop
	Requests int     // Echo, open loop: a measurement sends at least so many requests
	Conns    int     // Echo: connections; Idle: idle connections
	Busy     int     // Echo: CPU-bound tasks in the server
}

// The sections of the report, in order.
const (
	TaskSection    = "Tasks"
	SyncSection    = "Mutex and channels"
	SleepSection   = "Sleepers"
	CostSection    = "Cost per task"
	EchoSection    = "Echo over sockets"
	IdleSection    = "Memory"
	BesideSection  = "An event beside CPU-bound tasks"
	ProfileSection = "Where the time goes: echo under perf"
)

// Sections has all sections, in the order of the report.
var Sections = []string{TaskSection, SyncSection, SleepSection, CostSection, EchoSection, IdleSection, BesideSection, ProfileSection}

// leastRequests is the least number of requests in a round: ten latencies are then above the 99th
// percentile.
const leastRequests = 1_000

const (
	// shapeRounds is the number of rounds for the rows that show how a figure changes with the
	// number of connections or tasks. The rows from which verdicts are drawn are measured in every
	// round.
	shapeRounds = 3

	// profileRounds is the number of rounds for profiles. It is small because a profile takes
	// several seconds.
	profileRounds = 5

	// countRounds is the number of rounds for counts and memory, which hardly differ between runs.
	countRounds = 3
)

// RequestBytes is the size of a request and of its echo.
const RequestBytes = 64

var (
	rates = []float64{500, 5_000, 20_000, 0}
	conns = []int{1, 8, 64, 1_000}
	// With the largest number the process stays below a limit of 20,000 descriptors.
	idleConns = []int{1_000, 5_000, 10_000, 19_500}
	busyTasks = []int{0, 1, 2, 4, 16, 64}
	rust      = []string{"tokio", "async-std", "smol"}
	goRivals  = []string{"netpoll", "netpoll-inline", "gnet", "nbio", "gaio", "evio"}
	variants  = []string{"straight-1w", "netpoll-pollers", "gnet-locked", "nbio-edge", "gaio-1w"}
	floors    = []string{"c-1", "c", "sketch-locked", "sketch-unlocked"}
	echoForms = []string{"straight", "straight-shared", "future", "future-shared", "serve", "serve-shared", "netconn", "netconn-shared"}
)

var (
	forTasks = join([]string{"goroutines", "straight", "straight-shared", "future", "future-shared"}, rust)
	forEcho  = join([]string{"net"}, echoForms, goRivals, rust, floors)
)

// Rows has all rows.
var Rows = slices.Concat(taskRows(), syncRows(), sleepRows(), costRows(), echoRows(), idleRows(), besideRows(), perfRows())

func join[T any](lists ...[]T) []T { return slices.Concat(lists...) }

// Units of workloads.
var (
	microseconds = unit{"µs", 1e-3}
	milliseconds = unit{"ms", 1e-6}
	nanoseconds  = unit{"ns", 1}
)

type unit struct {
	name  string
	scale float64 // units per nanosecond
}

func (u unit) metrics() []Metric {
	return []Metric{
		{Key: "ns", Title: "median " + u.name, Scale: u.scale},
		{Key: "cpu_ns", Title: "mean CPU " + u.name, Scale: u.scale},
		{Key: "calls", Title: "calls", Scale: 1},
	}
}

// workRow returns the row of a workload.
func workRow(section, workload, title string, u unit, subjects []string) Row {
	return Row{
		Name: "work/" + workload, Section: section, Title: title, Kind: Work,
		Baseline: "goroutines", Subjects: subjects, Metrics: u.metrics(), Workload: workload,
	}
}

func taskRows() []Row {
	rows := []Row{
		workRow(TaskSection, "chained_spawn", fmt.Sprintf("chained_spawn: %d tasks, each spawned by the one before", work.ChainLength), microseconds, forTasks),
		workRow(TaskSection, "ping_pong", fmt.Sprintf("ping_pong: %d pairs of tasks, a message there and one back (Go: channels of capacity 1; others: oneshots)", work.PingPairs), microseconds, forTasks),
		workRow(TaskSection, "spawn_many", fmt.Sprintf("spawn_many: %d tasks, spawned from outside the pool", work.SpawnCount), microseconds, forTasks),
		workRow(TaskSection, "spawn_many_by_task", fmt.Sprintf("spawn_many: %d tasks, spawned by a task", work.SpawnCount), microseconds, forTasks),
		workRow(TaskSection, "yield_many", fmt.Sprintf("yield_many: %d tasks that yield %d times", work.YieldTasks, work.YieldTimes), microseconds, forTasks),
	}
	for i := range rows {
		rows[i].Quick = rows[i].Workload != "spawn_many"
	}
	return rows
}

func syncRows() []Row {
	create := workRow(SyncSection, "mutex_create", "mutex: create one (the straight-line and the future form have the same)", nanoseconds, join([]string{"goroutines", "straight"}, rust))
	contention := workRow(SyncSection, "mutex_contention", fmt.Sprintf("mutex, contention: %d tasks lock and unlock %d times", work.ContentionTasks, work.ContentionTimes), microseconds,
		join([]string{"goroutines", "straight", "straight-1w", "straight-shared", "inside", "future", "future-shared"}, rust))
	alone := workRow(SyncSection, "mutex_no_contention", fmt.Sprintf("mutex, no contention: one task locks and unlocks %d times", work.LonelyTimes), microseconds,
		join([]string{"goroutines", "straight", "straight-1w", "straight-shared", "inside", "future", "future-shared"}, rust))
	channels := join([]string{"goroutines", "straight", "straight-1w", "straight-shared", "future", "future-1w", "future-shared"}, rust)
	many := workRow(SyncSection, "mpmc_4x4", fmt.Sprintf("channel of capacity %d, 4 senders, 4 receivers, per message", work.ChanCapacity), nanoseconds, channels)
	one := workRow(SyncSection, "mpmc_4x1", fmt.Sprintf("channel of capacity %d, 4 senders, 1 receiver, per message", work.ChanCapacity), nanoseconds, join(channels, []string{"tokio-mpsc"}))
	contention.Quick, many.Quick = true, true
	return []Row{create, contention, alone, many, one}
}

func sleepRows() []Row {
	return []Row{
		workRow(SleepSection, "sleep_10ms", fmt.Sprintf("%d tasks sleep 10 ms", work.Sleepers), milliseconds, forTasks),
		workRow(SleepSection, "sleep_1_to_100ms", fmt.Sprintf("%d tasks sleep 1 to 100 ms", work.Sleepers), milliseconds, forTasks),
	}
}

func costRows() []Row {
	var rows []Row
	for _, n := range work.CostSizes {
		row := workRow(CostSection, work.CostName(n), fmt.Sprintf("%d tasks, spawned by a task, each yields once: per task", n), nanoseconds, forTasks)
		row.Rounds = shapeRounds
		rows = append(rows, row)
	}
	return rows
}

// ByCost returns the number of tasks of a row of CostSection.
func (r Row) ByCost() int {
	for _, n := range work.CostSizes {
		if r.Workload == work.CostName(n) {
			return n
		}
	}
	return 0
}

var echoMetrics = []Metric{
	{Key: "cpu_us", Title: "CPU µs/request", Scale: 1},
	{Key: "p50_us", Title: "p50 µs", Scale: 1, Ratio: true},
	{Key: "p99_us", Title: "p99 µs", Scale: 1, Ratio: true},
	{Key: "p999_us", Title: "p99.9 µs", Scale: 1},
	{Key: "requests_s", Title: "requests/s", Scale: 1, More: true, Ratio: true},
	{Key: "rss_bytes", Title: "RSS MiB", Scale: 1. / (1 << 20)},
	{Key: "requests", Title: "requests", Scale: 1},
}

// generatorMetrics has the metrics that show, in the open loop, which part of a latency the
// generator causes.
var generatorMetrics = []Metric{
	{Key: "service_p50_us", Title: "service p50 µs", Scale: 1},
	{Key: "lag_p50_us", Title: "lag p50 µs", Scale: 1},
	{Key: "lag_p99_us", Title: "lag p99 µs", Scale: 1},
}

// openLoopMetrics returns the metrics of the open loop. The rate is not among the compared metrics,
// because it is given.
func openLoopMetrics() []Metric {
	metrics := slices.DeleteFunc(slices.Clone(echoMetrics), func(m Metric) bool { return m.Key == "requests_s" })
	return append(metrics, generatorMetrics...)
}

func loadName(rate float64) string {
	if rate == 0 {
		return "closed"
	}
	return fmt.Sprint(rate)
}

func loadTitle(rate float64, conns int) string {
	load := "closed loop"
	if rate > 0 {
		load = fmt.Sprintf("%.0f requests/s, open loop", rate)
	}
	if conns == 1 {
		return load + ", 1 connection"
	}
	return fmt.Sprintf("%s, %d connections", load, conns)
}

func echoRows() []Row {
	var rows []Row
	for _, rate := range rates {
		for _, n := range conns {
			r := Row{
				Name: fmt.Sprintf("echo/%s/%d", loadName(rate), n), Section: EchoSection, Title: loadTitle(rate, n),
				Kind: Echo, Baseline: "net", Subjects: forEcho, Metrics: echoMetrics, Rate: rate, Conns: n,
			}
			if rate > 0 {
				r.Metrics, r.Requests = openLoopMetrics(), leastRequests
			}
			if n == 64 {
				r.Quick = true
				r.Subjects = join(forEcho, variants)
			} else {
				r.Rounds = shapeRounds
			}
			rows = append(rows, r)
		}
	}
	return append(rows, lowRateRow())
}

// lowRateRow returns the row that shows the cost of a server with a very low load. It has too few
// requests for a 99th percentile.
func lowRateRow() Row {
	const rate, conns = 50, 64
	return Row{
		Name: fmt.Sprintf("echo/%d/%d", rate, conns), Section: EchoSection, Title: loadTitle(rate, conns),
		Kind: Echo, Baseline: "net", Subjects: forEcho, Metrics: openLoopMetrics(), Rate: rate, Conns: conns,
		Requests: 100, Rounds: shapeRounds, Quick: true,
	}
}

func idleRows() []Row {
	task := workRow(IdleSection, "idle_task", fmt.Sprintf("one of %d tasks that wait", work.IdleTasks), unit{}, forTasks)
	task.Metrics = []Metric{
		{Key: "bytes", Title: "bytes, after a collection", Scale: 1},
		{Key: "bytes_uncollected", Title: "bytes before it", Scale: 1},
	}
	task.Quick = true
	rows := []Row{task}
	for _, n := range idleConns {
		rows = append(rows, Row{
			Name: fmt.Sprintf("idle/%d", n), Section: IdleSection, Kind: Idle, Baseline: "net", Subjects: forEcho, Conns: n, Quick: n == 10_000, Rounds: countRounds,
			Title: fmt.Sprintf("one of %d idle connections, each used twice", n),
			Metrics: []Metric{
				{Key: "bytes", Title: "bytes, after a collection", Scale: 1},
				{Key: "bytes_uncollected", Title: "bytes before it", Scale: 1},
				{Key: "rss_bytes", Title: "RSS MiB", Scale: 1. / (1 << 20)},
			},
		})
	}
	return rows
}

func besideRows() []Row {
	var rows []Row
	for _, n := range busyTasks {
		tasks := fmt.Sprintf("%d CPU-bound tasks", n)
		if n == 1 {
			tasks = "1 CPU-bound task"
		}
		rows = append(rows, Row{
			Name: fmt.Sprintf("beside/%d", n), Section: BesideSection, Kind: Echo, Baseline: "net",
			Subjects: join([]string{"net", "net-gosched"}, echoForms, rust),
			Title:    fmt.Sprintf("500 requests/s on 8 connections beside %s", tasks),
			Metrics: join([]Metric{
				{Key: "p99_us", Title: "p99 µs", Scale: 1},
				{Key: "p50_us", Title: "p50 µs", Scale: 1},
				{Key: "max_us", Title: "max µs", Scale: 1},
				{Key: "requests", Title: "requests", Scale: 1},
			}, generatorMetrics),
			Rate: 500, Requests: leastRequests, Conns: 8, Busy: n, Rounds: shapeRounds,
		})
	}
	return rows
}

// profiledRequests is the number of requests under a profile. A server that uses 10 µs of CPU time
// per request then has about a hundred samples.
const profiledRequests = 2_500

func perfRows() []Row {
	profile := []Metric{
		{Key: "profile_ns", Title: "ns/request", Scale: 1, Samples: "profile_samples"},
		{Key: "profile_user_ns", Title: "user", Scale: 1, Ratio: true, Samples: "profile_user_samples"},
		{Key: "profile_kernel_ns", Title: "kernel", Scale: 1, Ratio: true, Samples: "profile_kernel_samples"},
		{Key: "profile_user_samples", Title: "user samples", Scale: 1},
		{Key: "profile_kernel_samples", Title: "kernel samples", Scale: 1},
	}
	counts := []Metric{
		{Key: "syscalls", Title: "system calls/request", Scale: 1},
		{Key: "futex", Title: "futex calls", Scale: 1, Ratio: true},
		{Key: "switches", Title: "context switches", Scale: 1, Ratio: true},
		{Key: "migrations", Title: "migrations", Scale: 1}, // too few for ratios
	}
	var rows []Row
	for _, rate := range rates {
		r := Row{Section: ProfileSection, Baseline: "net", Subjects: forEcho, Rate: rate, Conns: 64}
		r.Name, r.Kind, r.Metrics, r.Requests = "profile/"+loadName(rate), Profile, profile, profiledRequests
		r.Title, r.Rounds = loadTitle(rate, 64)+": CPU time by profile", profileRounds
		rows = append(rows, r)
		r.Name, r.Kind, r.Metrics, r.Requests, r.Rounds = "counts/"+loadName(rate), Counts, counts, leastRequests, countRounds
		r.Title = loadTitle(rate, 64) + ": counts"
		rows = append(rows, r)
	}
	return rows
}

// RowNamed returns the row of the given name.
func RowNamed(name string) (Row, bool) {
	i := slices.IndexFunc(Rows, func(r Row) bool { return r.Name == name })
	if i < 0 {
		return Row{}, false
	}
	return Rows[i], true
}

// RoundsOf returns in how many rounds the row is measured if the run has the given number of
// rounds.
func (r Row) RoundsOf(rounds int) int {
	if r.Rounds > 0 {
		return min(r.Rounds, rounds)
	}
	return rounds
}
