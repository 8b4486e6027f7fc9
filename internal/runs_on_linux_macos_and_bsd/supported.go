//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

// Package supported is empty. It has no files for systems without epoll and kqueue. So a build for
// such a system fails with the path of this package, which says why.
package supported
