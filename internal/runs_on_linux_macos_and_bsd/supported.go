//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

// Package supported is empty. It has no files for a system without epoll and kqueue, so that a
// build for such a system ends with the path of this package, which says why.
package supported
