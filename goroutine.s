//go:build !386 && !arm && !mips && !mipsle

#include "textflag.h"

// func getg() uintptr
//
// Every 64-bit port of Go but amd64 keeps the current g in a register that the
// assembler calls g. The 32-bit ports stand in getg_32.s and getg_386.s.
TEXT ·getg(SB),NOSPLIT,$0-8
#ifdef GOARCH_amd64
	MOVQ	(TLS), AX
	MOVQ	AX, ret+0(FP)
#endif
#ifdef GOARCH_arm64
	MOVD	g, ret+0(FP)
#endif
#ifdef GOARCH_loong64
	MOVV	g, ret+0(FP)
#endif
#ifdef GOARCH_mips64
	MOVV	g, ret+0(FP)
#endif
#ifdef GOARCH_mips64le
	MOVV	g, ret+0(FP)
#endif
#ifdef GOARCH_ppc64
	MOVD	g, ret+0(FP)
#endif
#ifdef GOARCH_ppc64le
	MOVD	g, ret+0(FP)
#endif
#ifdef GOARCH_riscv64
	MOV	g, ret+0(FP)
#endif
#ifdef GOARCH_s390x
	MOVD	g, ret+0(FP)
#endif
	RET
