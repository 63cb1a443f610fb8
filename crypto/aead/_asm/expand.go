package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// expandKey emits expandAVX2: the AES-256 key schedule (FIPS 197 §5.2), H = AES(0) and its powers.
//
// SubWord is taken from VAESENCLAST: with the same word in all four columns its ShiftRows does nothing, and its round key
// operand adds the round constant. That is faster on every CPU than VAESKEYGENASSIST.
func expandKey() {
	TEXT("expandAVX2", NOSPLIT, "func(s *byte, key *byte)")
	Pragma("noescape")
	Doc("expandAVX2 fills the schedule s from the 32 bytes at key.")
	s := Load(Param("s"), GP64())
	key := Load(Param("key"), GP64())

	even, odd, h := reg.X0, reg.X1, reg.X2
	rcon, zero, rotate, t, u := reg.X3, reg.X4, reg.X5, reg.X6, reg.X7
	one := GP32()

	VMOVDQU(at(key, 0), even)
	VMOVDQU(at(key, 16), odd)
	VMOVDQU(even, rk(s, 0))
	VMOVDQU(odd, rk(s, 1))
	VMOVDQU(cRotate, rotate)
	VPXOR(zero, zero, zero)
	MOVL(U32(1), one)
	VMOVD(one, rcon)
	VPSHUFD(U8(0), rcon, rcon)
	VMOVDQA(even, h)
	VAESENC(odd, h, h)

	// prefix makes each word of x the XOR of itself and all words before it.
	prefix := func(x reg.VecPhysical) {
		VPSLLDQ(U8(4), x, u)
		VPXOR(u, x, x)
		VPSLLDQ(U8(8), x, u)
		VPXOR(u, x, x)
	}
	for i := 2; i <= 14; i++ {
		x := even
		if i%2 == 0 {
			VPSHUFB(rotate, odd, t)
			VAESENCLAST(rcon, t, t)
			VPSLLD(U8(1), rcon, rcon)
		} else {
			x = odd
			VPSHUFD(U8(0xff), even, t)
			VAESENCLAST(zero, t, t)
		}
		prefix(x)
		VPXOR(t, x, x)
		VMOVDQU(x, rk(s, i))
		if i < 14 {
			VAESENC(x, h, h)
		} else {
			VAESENCLAST(x, h, h)
		}
	}

	// H·x: one bit to the left, and if a bit falls out, the polynomial is added. With this factor in every power the
	// product of two bswapped elements needs no further shift.
	VPSHUFB(cBswap, h, h)
	VPSHUFD(U8(0xff), h, t)
	VPSRAD(U8(31), t, t)
	VPAND(cPoly, t, t)
	VPSRLQ(U8(63), h, u)
	VPSLLDQ(U8(8), u, u)
	VPADDQ(h, h, h)
	VPOR(u, h, h)
	VPXOR(t, h, h)
	VMOVDQU(h, at(s, offPower(1)))

	poly := reg.Y15
	VBROADCASTI128(cPoly, poly)
	lo, mi, hi, tt := reg.Y8, reg.Y9, reg.Y10, reg.Y11
	// mul makes hi = a·b in both lanes.
	mul := func(a, b reg.Register) {
		VPCLMULQDQ(U8(0x00), a, b, lo)
		VPCLMULQDQ(U8(0x01), a, b, mi)
		VPCLMULQDQ(U8(0x10), a, b, tt)
		VPXOR(tt, mi, mi)
		VPCLMULQDQ(U8(0x11), a, b, hi)
		VPCLMULQDQ(U8(0x01), lo, poly, tt)
		VPSHUFD(U8(0x4e), lo, lo)
		VPXOR(tt, mi, mi)
		VPXOR(lo, mi, mi)
		VPCLMULQDQ(U8(0x01), mi, poly, tt)
		VPSHUFD(U8(0x4e), mi, mi)
		VPXOR(tt, hi, hi)
		VPXOR(mi, hi, hi)
	}
	// pair computes H^e in the low lane and H^(e-1) in the high one, from the powers in a and in b.
	pair := func(e int, a, b reg.Register) {
		mul(a, b)
		VMOVDQU(hi, at(s, offPower(e)))
	}
	twice := func(to reg.Register) { VPERM2I128(U8(0), hi, hi, to) } // the low lane of hi, in both lanes
	h2, h4, h6, h8, h12, by := reg.Y12, reg.Y14, reg.Y3, reg.Y4, reg.Y5, reg.Y13
	mul(h.AsY(), h.AsY())
	VMOVDQU(hi.AsX(), at(s, offPower(2)))
	VINSERTI128(U8(1), h, hi, h2)
	twice(by) // H^2
	pair(4, h2, by)
	VMOVDQA(hi, h4)
	twice(by) // H^4
	pair(6, h2, by)
	VMOVDQA(hi, h6)
	pair(8, h4, by)
	VMOVDQA(hi, h8)
	twice(by) // H^8
	pair(10, h2, by)
	pair(12, h4, by)
	VMOVDQA(hi, h12)
	pair(14, h6, by)
	pair(16, h8, by)
	twice(by) // H^16
	pair(18, h2, by)
	pair(20, h4, by)
	VINSERTI128(U8(1), by.AsX(), h8, h8) // H^8, H^16
	mul(h8, by)
	VMOVDQU(hi.AsX(), at(s, offPower(24)))
	VEXTRACTI128(U8(1), hi, at(s, offPower(32)))
	mul(h12, by)
	VMOVDQU(hi.AsX(), at(s, offPower(28)))

	// The sum of the halves of a power, for two powers at a time.
	for i := range 4 {
		a, b := reg.Y3, reg.Y4
		VMOVDQU(at(s, offPower(16-2*i)), a)
		VMOVDQU(at(s, offPower(8-2*i)), b)
		VPUNPCKHQDQ(b, a, tt)
		VPUNPCKLQDQ(b, a, a)
		VPXOR(tt, a, a)
		VMOVDQU(a, at(s, offHalves+32*i))
	}
	VZEROALL()
	RET()
}
