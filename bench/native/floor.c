// floor is an echo server on 127.0.0.1: epoll, edge-triggered, read and write in place. It
// shows the least that a server can do. Its command line is that of the Go programs:
//
//	floor echo -workers=N -busy=0 epoll
//
// Each worker is a thread with a listener of its own (SO_REUSEPORT).
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

// What a socket did not take, by descriptor. While there is any, the connection is not
// read.
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
		// A short read has emptied the socket, and later input raises a new edge. After a
		// hang-up there is no later edge, and a connection that was held back may have
		// missed one: both are read to the end.
		if (n < BUFFER && (events & EPOLLIN) && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
			return;
	}
}

static void accept_all(int listener, int epoll) {
	int fd, one = 1;
	while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		if (fd >= MAX_FD) {
			close(fd);
			continue;
		}
		if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
			die("TCP_NODELAY");
		struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e))
			die("epoll_ctl");
	}
	if (errno != EAGAIN && errno != ECONNABORTED)
		die("accept4");
}

static _Noreturn void *serve(void *arg) {
	int listener = (int)(intptr_t)arg;
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll < 0)
		die("epoll_create1");
	struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e))
		die("epoll_ctl");
	struct epoll_event events[256];
	char buf[BUFFER];
	for (;;) {
		int n = epoll_wait(epoll, events, 256, -1);
		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == listener)
				accept_all(listener, epoll);
			else
				serve_event(events[i].data.fd, events[i].events, buf);
		}
	}
}

// listen_on opens a listener on a port; port 0 becomes the port that the system has
// chosen.
static int listen_on(in_port_t *port) {
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = *port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one))
		die("socket");
	if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096) || getsockname(fd, (struct sockaddr *)&a, &len))
		die("listen");
	*port = a.sin_port;
	return fd;
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
	in_port_t port = 0;
	int listeners[MAX_WORKERS];
	for (int i = 0; i < workers; i++)
		listeners[i] = listen_on(&port);
	for (int i = 0; i < workers; i++) {
		pthread_t t;
		if (pthread_create(&t, 0, serve, (void *)(intptr_t)listeners[i]))
			die("pthread_create");
	}
	printf("127.0.0.1:%d\n", ntohs(port));
	fflush(stdout);
	// The main thread follows standard input, and the process ends with it.
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
