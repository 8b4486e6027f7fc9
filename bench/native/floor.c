// floor is an echo server on 127.0.0.1: epoll, edge-triggered, and each event is read and written
// by the thread that received it. Its command line is the command line of the Go programs:
//
//	floor echo -workers=N -busy=0 epoll
//
// Each worker is a thread with an epoll descriptor of its own. One more thread accepts connections
// and passes them to the workers in turn. A listener for each worker (SO_REUSEPORT) was refused:
// the kernel would spread connections by a hash, which is uneven for few connections.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 4096, MAX_FD = 1 << 20, MAX_WORKERS = 1024 };

// Data that a socket did not accept, by descriptor. A connection with such data is not read.
static struct rest {
	char *data;
	uint32_t off, len;
} *rests;

static void die(const char *what) {
	perror(what);
	exit(1);
}

static void hang_up(int fd) {
	free(rests[fd].data);
	rests[fd] = (struct rest){0};
	close(fd);
}

static void serve_event(int fd, uint32_t events, char *buf) {
	struct rest *r = &rests[fd];
	if (r->data) {
		ssize_t n = write(fd, r->data + r->off, r->len - r->off);
		if (n < 0 && errno != EAGAIN) {
			hang_up(fd);
			return;
		}
		if (n > 0)
			r->off += n;
		if (r->off < r->len)
			return;
		free(r->data);
		*r = (struct rest){0};
	} else if (!(events & ~EPOLLOUT)) {
		return;
	}
	for (;;) {
		ssize_t n = read(fd, buf, BUFFER);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			hang_up(fd);
			return;
		}
		ssize_t written = write(fd, buf, n);
		if (written < 0) {
			if (errno != EAGAIN) {
				hang_up(fd);
				return;
			}
			written = 0;
		}
		if (written < n) {
			r->len = n - written;
			if (!(r->data = malloc(r->len)))
				die("malloc");
			memcpy(r->data, buf + written, r->len);
			return;
		}
		// A short read has emptied the socket, and later input causes a new event. There are two
		// exceptions, in which the loop reads until EAGAIN: after a hang-up there is no later
		// event, and a connection that had a rest may have ignored an event.
		if (n < BUFFER && (events & EPOLLIN) && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
			return;
	}
}

static _Noreturn void *serve(void *arg) {
	int epoll = (int)(intptr_t)arg;
	struct epoll_event events[256];
	char buf[BUFFER];
	for (;;) {
		int n = epoll_wait(epoll, events, 256, -1);
		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++)
			serve_event(events[i].data.fd, events[i].events, buf);
	}
}

static struct {
	int listener, workers, epolls[MAX_WORKERS];
} shared;

// deal accepts connections, and passes them to the workers in turn.
static _Noreturn void *deal(void *unused) {
	(void)unused;
	for (unsigned i = 0;; i++) {
		int fd = accept4(shared.listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
		if (fd < 0 && (errno == ECONNABORTED || errno == EINTR))
			continue;
		if (fd < 0 || fd >= MAX_FD)
			die("accept4");
		if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
			die("TCP_NODELAY");
		struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
		if (epoll_ctl(shared.epolls[i % shared.workers], EPOLL_CTL_ADD, fd, &e))
			die("epoll_ctl");
	}
}

// listen_on opens the listener and returns its port.
static int listen_on(void) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	shared.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (shared.listener < 0)
		die("socket");
	if (bind(shared.listener, (struct sockaddr *)&a, len) || listen(shared.listener, 4096) || getsockname(shared.listener, (struct sockaddr *)&a, &len))
		die("listen");
	return ntohs(a.sin_port);
}

static void start(void *(*run)(void *), int arg) {
	pthread_t t;
	if (pthread_create(&t, 0, run, (void *)(intptr_t)arg))
		die("pthread_create");
}

int main(int argc, char **argv) {
	int workers = 0, busy = 0, good = argc == 5 && !strcmp(argv[1], "echo") && !strcmp(argv[4], "epoll");
	good = good && sscanf(argv[2], "-workers=%d", &workers) == 1 && sscanf(argv[3], "-busy=%d", &busy) == 1;
	if (!good || workers < 1 || workers > MAX_WORKERS || busy != 0) {
		fprintf(stderr, "usage: floor echo -workers=N -busy=0 epoll\n");
		return 2;
	}
	if (!(rests = calloc(MAX_FD, sizeof *rests)))
		die("calloc");
	int port = listen_on();
	shared.workers = workers;
	for (int i = 0; i < workers; i++) {
		if ((shared.epolls[i] = epoll_create1(EPOLL_CLOEXEC)) < 0)
			die("epoll_create1");
		start(serve, shared.epolls[i]);
	}
	start(deal, 0);
	printf("127.0.0.1:%d\n", port);
	fflush(stdout);
	// The main thread answers the lines of standard input. The process ends when standard input
	// ends.
	char line[64];
	while (fgets(line, sizeof line, stdin)) {
		if (!strcmp(line, "collect\n")) {
			malloc_trim(0);
			puts("collected");
			fflush(stdout);
		}
	}
	return 0;
}
