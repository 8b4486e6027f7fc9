//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package async

const filesAreRefused = false
