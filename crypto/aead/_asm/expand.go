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
	H, pair, by := reg.Y2, reg.Y12, reg.Y13
	mul(H, H)
	VMOVDQU(hi.AsX(), at(s, offPower(2)))
	VINSERTI128(U8(1), h, hi, pair) // H^2, H^1
	VPERM2I128(U8(0), hi, hi, by)   // H^2, H^2
	mul(pair, by)                   // H^4, H^3
	VMOVDQU(hi, at(s, offPower(4))) //
	VMOVDQA(hi, reg.Y14)            //
	VPERM2I128(U8(0), hi, hi, by)   // H^4, H^4
	mul(pair, by)                   // H^6, H^5
	VMOVDQU(hi, at(s, offPower(6))) //
	VMOVDQA(hi, reg.Y3)             //
	mul(reg.Y14, by)                // H^8, H^7
	VMOVDQU(hi, at(s, offPower(8))) //
	VMOVDQA(hi, reg.Y4)             //
	VPERM2I128(U8(0), hi, hi, by)   // H^8, H^8
	for i, p := range []reg.Register{pair, reg.Y14, reg.Y3, reg.Y4} {
		mul(p, by) // H^10, H^9 ... H^16, H^15
		VMOVDQU(hi, at(s, offPower(10+2*i)))
		if i == 1 {
			VMOVDQA(hi, reg.Y5)
		}
	}
	VPERM2I128(U8(0), hi, hi, by) // H^16, H^16
	for i, p := range []reg.Register{pair, reg.Y14} {
		mul(p, by) // H^18, H^17 and H^20, H^19
		VMOVDQU(hi, at(s, offPower(18+2*i)))
	}
	VINSERTI128(U8(1), by.AsX(), reg.Y4, reg.Y4)
	mul(reg.Y4, by) // H^24, H^32
	VMOVDQU(hi.AsX(), at(s, offPower(24)))
	VEXTRACTI128(U8(1), hi, at(s, offPower(32)))
	mul(reg.Y5, by) // H^28
	VMOVDQU(hi.AsX(), at(s, offPower(28)))
	for i := range 4 {
		a, b := reg.Y3, reg.Y4
		VMOVDQU(at(s, offPower(16-2*i)), a)
		VMOVDQU(at(s, offPower(8-2*i)), b)
		VPUNPCKHQDQ(b, a, tt)
		VPUNPCKLQDQ(b, a, a)
		VPXOR(tt, a, a)
		VMOVDQU(a, at(s, offHalves+32*i))
	}
	VZEROUPPER()
	RET()
}
