package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Registers of the AVX2 kernel. Half of the sixteen hold blocks in AES; round keys, powers of H and constants come from memory.
var (
	yState = []reg.VecPhysical{reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7}
	yKey   = reg.Y8
	yCount = reg.Y9  // counter blocks of the next two blocks
	yMask  = reg.Y9  // in the tail: the block that masks the tag
	yLo    = reg.Y10 // sums of products: low halves,
	yMi    = reg.Y11 // middle,
	yHi    = reg.Y12 // and high halves
	yT     = reg.Y13
	yData  = reg.Y14
	yAcc   = reg.Y15 // GHASH value so far, in the low lane
)

// avx2 emits sealAVX2 or openAVX2.
func avx2(name string, seal bool) {
	k := begin(name, seal)
	k.scratch = GP64()
	LEAQ(AllocLocal(32), k.scratch)

	k.yFirst(yCount)
	VPSHUFB(cBswap, yCount.AsX(), yCount.AsX())
	VINSERTI128(U8(1), yCount.AsX(), yCount, yCount)
	VPADDD(cCount.Offset(16), yCount, yCount)
	VPXOR(yAcc, yAcc, yAcc)
	TESTQ(k.adn, k.adn)
	JZ(k.ref("Data"))
	k.yAdditional()
	k.label("Data")

	// As in the AVX-512 kernel the tail does the last 1 to 256 bytes, and hashing is sixteen blocks behind sealing.
	MOVQ(k.n, k.left)
	CMPQ(k.left, U32(256))
	JBE(k.ref("Tail"))
	VPSHUFB(cBswap, yCount, yCount)
	MOVL(U32(2), k.low)
	back := 0
	if seal {
		back = -256
		k.ySixteen("First", nil)
		CMPQ(k.left, U32(256))
		JBE(k.ref("Last"))
	}
	k.label("Loop")
	k.ySixteen("Next", k.yHash(back))
	CMPQ(k.left, U32(256))
	JA(k.ref("Loop"))
	if seal {
		k.label("Last")
		run(k.yHash(back))
	}
	VPSHUFB(cBswap, yCount, yCount)

	k.label("Tail")
	TESTQ(k.left, k.left)
	JZ(k.ref("None"))
	part := k.yPart(k.left)
	in, out := GP64(), GP64()
	MOVQ(k.left, out)
	SUBQ(part, out)
	MOVQ(k.src, in)
	ADDQ(out, in)
	ADDQ(k.dst, out)
	CMPQ(part, U32(32))
	JE(k.ref("Whole"))
	VPXOR(yT, yT, yT)
	VMOVDQU(yT, at(k.scratch, 0))
	k.yCopy("In", k.scratch, in, part)
	MOVQ(k.scratch, in)
	k.label("Whole")
	pow := k.powers(k.left, 2)
	k.yLengths(false)
	for groups := 8; groups >= 2; groups-- {
		CMPQ(k.left, U32(32*(groups-1)))
		JA(k.ref("Tail", groups))
	}
	for groups := 1; groups <= 8; groups++ {
		k.label("Tail", groups)
		k.yTail(groups, part, in, pow)
		JMP(k.ref("Out"))
	}
	k.label("None")
	k.yLengths(true)
	k.yFirst(yMask)
	VPXOR(rk(k.s, 0), yMask.AsX(), yMask.AsX())
	for r := 1; r < 14; r++ {
		VAESENC(rk(k.s, r), yMask.AsX(), yMask.AsX())
	}
	VAESENCLAST(rk(k.s, 14), yMask.AsX(), yMask.AsX())
	JMP(k.ref("Tag"))

	// yTail leaves its last group in yKey.
	k.label("Out")
	CMPQ(part, U32(32))
	JNE(k.ref("Part"))
	VMOVDQU(yKey, at(out, 0))
	JMP(k.ref("Tag"))
	k.label("Part")
	VMOVDQU(yKey, at(k.scratch, 0))
	k.yCopy("Out", out, k.scratch, part)
	VPXOR(yT, yT, yT)
	VMOVDQU(yT, at(k.scratch, 0))

	k.label("Tag")
	run(yReduce())
	VPSHUFB(cBswap, yAcc.AsX(), yAcc.AsX())
	VPXOR(yAcc.AsX(), yMask.AsX(), yMask.AsX())
	if seal {
		VMOVDQU(yMask.AsX(), at1(k.dst, k.left))
	} else {
		VPXOR(at1(k.src, k.left), yMask.AsX(), yT.AsX())
		VPTEST(yT.AsX(), yT.AsX())
		k.setOK()
	}
	VZEROALL()
	RET()
	for _, rest := range k.outOfLine {
		rest()
	}
}

// yFirst puts J0, the counter block that masks the tag, into the low lane of y.
func (k *kernel) yFirst(y reg.VecPhysical) {
	g := GP32()
	MOVL(U32(1<<24), g)
	VMOVQ(at(k.nonce, 0), y.AsX())
	VPINSRD(U8(2), at(k.nonce, 8), y.AsX(), y.AsX())
	VPINSRD(U8(3), g, y.AsX(), y.AsX())
}

// yCounters puts the next sixteen counter blocks, whitened with the first round key, into yState. As in zCounters, yCount is
// not bswapped here.
func (k *kernel) yCounters(part string) {
	VBROADCASTI128(rk(k.s, 0), yKey)
	ADDB(U8(16), k.low.As8())
	JCS(k.ref("Carry" + part))
	for i, y := range yState {
		VPADDD(cTwosHigh.Offset(32*i), yCount, y)
		VPXOR(yKey, y, y)
	}
	VPADDD(cTwosHigh.Offset(32*8), yCount, yCount)
	k.label("Counted" + part)
	k.outOfLine = append(k.outOfLine, func() {
		k.label("Carry" + part)
		VPSHUFB(cBswap, yCount, yCount)
		yCountUp(8)
		VPADDD(cTwos.Offset(32*8), yCount, yCount)
		VPSHUFB(cBswap, yCount, yCount)
		JMP(k.ref("Counted" + part))
	})
}

// yCountUp puts the next counter blocks, whitened with the first round key in yKey, into the first groups states, when
// yCount is bswapped.
func yCountUp(groups int) {
	for i, y := range yState[:groups] {
		VPADDD(cTwos.Offset(32*i), yCount, y)
		VPSHUFB(cBswap, y, y)
		VPXOR(yKey, y, y)
	}
}

// yRounds does all rounds but the last on the first groups states, and on yMask if mask is set.
func (k *kernel) yRounds(groups int, mask bool) (list []step) {
	for r := 1; r < 14; r++ {
		list = append(list, func() { VBROADCASTI128(rk(k.s, r), yKey) })
		for _, y := range yState[:groups] {
			list = append(list, func() { VAESENC(yKey, y, y) })
		}
		if mask {
			list = append(list, func() { VAESENC(yKey.AsX(), yMask.AsX(), yMask.AsX()) })
		}
	}
	return list
}

// ySixteen does the next sixteen blocks and, between the rounds, hash.
func (k *kernel) ySixteen(part string, hash []step) {
	k.yCounters(part)
	weave(k.yRounds(8, false), hash)
	VBROADCASTI128(rk(k.s, 14), yKey)
	for i, y := range yState {
		VPXOR(at(k.src, 32*i), yKey, yT)
		VAESENCLAST(yT, y, y)
		VMOVDQU(y, at(k.dst, 32*i))
	}
	k.advance(256)
}

// yProduct adds the products of the blocks in d and the powers of H at pow to the sums, or begins the sums with them.
func yProduct(begin bool, pow Mem, d reg.Register) (list []step) {
	sum := func(imm uint8, to reg.Register, begin bool) step {
		if begin {
			return func() { VPCLMULQDQ(U8(imm), pow, d, to) }
		}
		return func() {
			VPCLMULQDQ(U8(imm), pow, d, yT)
			VPXOR(yT, to, to)
		}
	}
	return []step{sum(0x00, yLo, begin), sum(0x01, yMi, begin), sum(0x11, yHi, begin), sum(0x10, yMi, false)}
}

// yHash absorbs sixteen blocks of ciphertext, which are back bytes from dst if that is behind it, or else at src. It does
// with three multiplications per block (Karatsuba: the middle product is that of the sums of the halves, less the other two),
// which pays where a register has few lanes and the multiplier is slow.
func (k *kernel) yHash(back int) (list []step) {
	base := k.src
	if back < 0 {
		base = k.dst
	}
	sum := func(imm uint8, pow Mem, to reg.Register, begin bool) step {
		if begin {
			return func() { VPCLMULQDQ(U8(imm), pow, yData, to) }
		}
		return func() {
			VPCLMULQDQ(U8(imm), pow, yData, yT)
			VPXOR(yT, to, to)
		}
	}
	for i := 7; i >= 0; i-- {
		list = append(list, func() { VMOVDQU(at(base, back+32*i), yData) }, func() { VPSHUFB(cBswap, yData, yData) })
		if i == 0 {
			list = append(list, func() { VPXOR(yAcc, yData, yData) })
		}
		pow, halves, half := at(k.s, offPower(16-2*i)), at(k.s, offHalves+32*(i%4)), uint8(i/4*0x10)
		list = append(list, sum(0x00, pow, yLo, i == 7), sum(0x11, pow, yHi, i == 7),
			func() { VPSHUFD(U8(0x4e), yData, yT) }, func() { VPXOR(yT, yData, yData) }, sum(half, halves, yMi, i == 7))
	}
	list = append(list, func() { VPXOR(yLo, yMi, yMi) }, func() { VPXOR(yHi, yMi, yMi) })
	return append(list, yReduce()...)
}

// yReduce turns the sums into the GHASH value.
func yReduce() []step {
	return []step{
		func() { VPCLMULQDQ(U8(0x10), cPoly, yLo, yT) },
		func() { VPSHUFD(U8(0x4e), yLo, yLo) },
		func() { VPXOR(yLo, yMi, yMi) },
		func() { VPXOR(yT, yMi, yMi) },
		func() { VPCLMULQDQ(U8(0x10), cPoly, yMi, yT) },
		func() { VPSHUFD(U8(0x4e), yMi, yMi) },
		func() { VPXOR(yMi, yHi, yHi) },
		func() { VPXOR(yT, yHi, yHi) },
		func() { VEXTRACTI128(U8(1), yHi, yT.AsX()) },
		func() { VPXOR(yT.AsX(), yHi.AsX(), yAcc.AsX()) },
	}
}

// yLengths begins the sums with the product of the length block and H; only says that no other block is left.
func (k *kernel) yLengths(only bool) {
	x := yData.AsX()
	k.lengths(x)
	if only {
		VPXOR(yAcc.AsX(), x, x)
	}
	pow := at(k.s, offPower(1))
	VPCLMULQDQ(U8(0x00), pow, x, yLo.AsX())
	VPCLMULQDQ(U8(0x01), pow, x, yMi.AsX())
	VPCLMULQDQ(U8(0x11), pow, x, yHi.AsX())
	VPCLMULQDQ(U8(0x10), pow, x, yT.AsX())
	VPXOR(yT, yMi, yMi)
}

// yTail does the last bytes, fewer than 257, which are in so many groups of 32, and the tag mask. The last group, of which
// part bytes count, is read from in and left in yKey.
func (k *kernel) yTail(groups int, part, in, pow reg.Register) {
	last := groups - 1
	from := func(i int) Mem {
		if i == last {
			return at(in, 0)
		}
		return at(k.src, 32*i)
	}
	var hash []step
	for i := last; i >= 0; i-- {
		data := yData
		if k.seal {
			data = yState[i]
		} else {
			hash = append(hash, func() { VMOVDQU(from(i), yData) })
		}
		hash = append(hash, func() { VPSHUFB(cBswap, data, data) })
		if i == 0 {
			hash = append(hash, func() { VPXOR(yAcc, data, data) })
		}
		hash = append(hash, yProduct(false, at(pow, 32*i), data)...)
	}

	VBROADCASTI128(rk(k.s, 0), yKey)
	yCountUp(groups)
	k.yFirst(yMask)
	VPXOR(rk(k.s, 0), yMask.AsX(), yMask.AsX())
	if k.seal {
		run(k.yRounds(groups, true))
	} else {
		weave(k.yRounds(groups, true), hash)
	}
	VBROADCASTI128(rk(k.s, 14), yKey)
	VAESENCLAST(yKey.AsX(), yMask.AsX(), yMask.AsX())
	for i, y := range yState[:groups] {
		VPXOR(from(i), yKey, yT)
		VAESENCLAST(yT, y, y)
		if i < last {
			VMOVDQU(y, at(k.dst, 32*i))
		}
	}
	VMOVDQA(yState[last], yKey)
	if k.seal {
		// What lies behind the last byte is key stream, not ciphertext.
		window := GP64()
		LEAQ(cWindow.Offset(32), window)
		SUBQ(part, window)
		VPAND(at(window, 0), yState[last], yState[last])
		run(hash)
	}
}

// yPart returns how many bytes the last group of 32 has when left bytes, not none, are left.
func (k *kernel) yPart(left reg.Register) reg.Register {
	part := GP64()
	LEAQ(at(left, -1), part)
	ANDQ(U8(31), part)
	INCQ(part)
	return part
}

// yCopy copies fewer than 32 bytes.
func (k *kernel) yCopy(part string, to, from, bytes reg.Register) {
	x, g, i := yT.AsX(), GP64(), GP64()
	XORL(i.As32(), i.As32())
	piece := func(size int, move func()) {
		skip := k.ref("Copy"+part, size)
		TESTB(U8(size), bytes.(reg.GP).As8())
		JZ(skip)
		move()
		ADDQ(U8(size), i)
		k.label("Copy"+part, size)
	}
	piece(16, func() { VMOVDQU(at1(from, i), x); VMOVDQU(x, at1(to, i)) })
	piece(8, func() { MOVQ(at1(from, i), g); MOVQ(g, at1(to, i)) })
	piece(4, func() { MOVL(at1(from, i), g.As32()); MOVL(g.As32(), at1(to, i)) })
	piece(2, func() { MOVW(at1(from, i), g.As16()); MOVW(g.As16(), at1(to, i)) })
	piece(1, func() { MOVB(at1(from, i), g.As8()); MOVB(g.As8(), at1(to, i)) })
}

// yAdditional absorbs the additional data, 32 bytes at a time; only the last group may be shorter.
func (k *kernel) yAdditional() {
	ad, left := Load(Param("ad"), GP64()), GP64()
	MOVQ(k.adn, left)
	CMPQ(left, U32(32))
	JB(k.ref("AdPart"))
	k.label("AdFull")
	VMOVDQU(at(ad, 0), yData)
	k.yAbsorb(at(k.s, offPower(2)))
	ADDQ(U8(32), ad)
	SUBQ(U8(32), left)
	CMPQ(left, U32(32))
	JAE(k.ref("AdFull"))
	TESTQ(left, left)
	JZ(k.ref("Data"))
	k.label("AdPart")
	VPXOR(yT, yT, yT)
	VMOVDQU(yT, at(k.scratch, 0))
	k.yCopy("Ad", k.scratch, ad, left)
	VMOVDQU(at(k.scratch, 0), yData)
	k.yAbsorb(at(k.powers(left, 1), 0))
}

// yAbsorb absorbs the blocks in yData, whose powers of H are at pow.
func (k *kernel) yAbsorb(pow Mem) {
	VPSHUFB(cBswap, yData, yData)
	VPXOR(yAcc, yData, yData)
	run(yProduct(true, pow, yData), yReduce())
}
