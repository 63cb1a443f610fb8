package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Registers of the AVX-512 kernel.
var (
	zRound = []reg.VecPhysical{reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10,
		reg.Z11, reg.Z12, reg.Z13, reg.Z14} // round keys, the same in each lane
	zCount = reg.Z15                                               // counter blocks of the next four blocks
	zBswap = reg.Z16                                               // shuffle that reverses the bytes of each block
	zAcc   = reg.Z17                                               // GHASH value so far: the sum of the lanes, see zHash
	zState = []reg.VecPhysical{reg.Z18, reg.Z19, reg.Z20, reg.Z21} // sixteen blocks in AES
	zData  = []reg.VecPhysical{reg.Z22, reg.Z23, reg.Z24, reg.Z25} // sixteen blocks in GHASH
	zLo    = reg.Z26                                               // sums of products: low halves,
	zMi    = reg.Z27                                               // middle,
	zHi    = reg.Z28                                               // and high halves
	zPow   = reg.Z29                                               // powers of H
	zT     = reg.Z30                                               // scratch, like zMask before the tail
	zMask  = reg.Z31                                               // in the tail: the block that masks the tag
)

const xor3 = 0x96 // VPTERNLOG truth table of a three-way XOR

// avx512 emits sealAVX512 or openAVX512.
func avx512(name string, seal bool) {
	k := begin(name, seal)
	for i, z := range zRound {
		VBROADCASTI32X4(rk(k.s, i), z)
	}
	VMOVDQU64(cBswap, zBswap)
	k.zFirst()
	VPSHUFB(zBswap.AsX(), zMask.AsX(), zCount.AsX())
	VSHUFI64X2(U8(0), zCount, zCount, zCount)
	VPADDD(cCount.Offset(16), zCount, zCount)
	VPXORQ(zAcc, zAcc, zAcc)

	TESTQ(k.adn, k.adn)
	JZ(k.ref("Data"))
	k.zAdditional()
	k.label("Data")

	// The tail does the last bytes, up to 256 and not 0 if there are any, because it also absorbs the lengths.
	MOVQ(k.n, k.left)
	CMPQ(k.left, U32(256))
	JBE(k.ref("Tail"))
	VPSHUFB(zBswap, zCount, zCount)
	MOVL(U32(2), k.low)
	if seal {
		k.zSealBulk()
	} else {
		k.zOpenBulk()
	}
	VPSHUFB(zBswap, zCount, zCount)

	k.label("Tail")
	k.zFirst()
	TESTQ(k.left, k.left)
	JZ(k.ref("None"))
	k.zLengths(false)
	for groups := 4; groups >= 2; groups-- {
		CMPQ(k.left, U32(64*(groups-1)))
		JA(k.ref("Tail", groups))
	}
	for groups := 1; groups <= 4; groups++ {
		k.label("Tail", groups)
		k.zTail(groups)
		JMP(k.ref("Tag"))
	}
	k.label("None")
	k.zLengths(true)
	VPXORQ(zRound[0].AsX(), zMask.AsX(), zMask.AsX())
	for r := 1; r < 14; r++ {
		VAESENC(zRound[r].AsX(), zMask.AsX(), zMask.AsX())
	}
	VAESENCLAST(zRound[14].AsX(), zMask.AsX(), zMask.AsX())
	k.label("Tag")
	run(zReduce())
	zFold()
	VPSHUFB(zBswap.AsX(), zAcc.AsX(), zAcc.AsX())
	VPXORQ(zAcc.AsX(), zMask.AsX(), zMask.AsX())
	if seal {
		VMOVDQU64(zMask.AsX(), at1(k.dst, k.left))
	} else {
		VPXORQ(at1(k.src, k.left), zMask.AsX(), reg.X0)
		VPTEST(reg.X0, reg.X0)
		k.setOK()
	}
	// No round key or key stream stays behind in a register. (VZEROALL would not reach the upper sixteen.)
	for _, list := range [][]reg.VecPhysical{zRound, zState, zData, {zCount, zBswap, zAcc, zLo, zMi, zHi, zPow, zT, zMask}} {
		for _, z := range list {
			VPXORQ(z.AsX(), z.AsX(), z.AsX())
		}
	}
	VZEROUPPER()
	RET()
	for _, rest := range k.outOfLine {
		rest()
	}
}

// zFirst puts J0, the counter block that masks the tag, into the low lane of zMask.
func (k *kernel) zFirst() {
	g := GP32()
	MOVL(U32(1<<24), g)
	VMOVQ(at(k.nonce, 0), zMask.AsX())
	VPINSRD(U8(2), at(k.nonce, 8), zMask.AsX(), zMask.AsX())
	VPINSRD(U8(3), g, zMask.AsX(), zMask.AsX())
}

// zSealBulk encrypts all but the last 1 to 256 bytes. The blocks absorbed are always sixteen behind those encrypted.
func (k *kernel) zSealBulk() {
	k.zCounters("First")
	run(zRounds(), k.zLast())
	k.advance(256)
	CMPQ(k.left, U32(512))
	JBE(k.ref("Half"))
	k.label("Loop")
	k.zSixteen("Even", zHash(k.s, 32, true, false))
	k.zSixteen("Odd", append(zHash(k.s, 16, false, false), zReduce()...))
	CMPQ(k.left, U32(512))
	JA(k.ref("Loop"))
	k.label("Half")
	CMPQ(k.left, U32(256))
	JBE(k.ref("Last"))
	k.zSixteen("One", append(zHash(k.s, 16, true, false), zReduce()...))
	k.label("Last")
	run(zHash(k.s, 16, true, true), zReduce())
	zFold()
}

// zOpenBulk decrypts all but the last 1 to 256 bytes.
func (k *kernel) zOpenBulk() {
	CMPQ(k.left, U32(768))
	JBE(k.ref("Half"))
	k.label("Loop")
	k.zSixteen("Even", zHash(k.s, 32, true, false))
	k.zSixteen("Odd", append(zHash(k.s, 16, false, false), zReduce()...))
	CMPQ(k.left, U32(768))
	JA(k.ref("Loop"))
	k.label("Half")
	k.zSixteen("One", append(zHash(k.s, 16, true, true), zReduce()...))
	zFold()
	CMPQ(k.left, U32(256))
	JA(k.ref("Half"))
}

// zCounters puts the next sixteen counter blocks, whitened with the first round key, into zState. Here zCount holds blocks
// that are not bswapped, so that four are added to the last byte only; k.low is that byte of the first of them, and when
// it overflows (once in 4 KiB, at a place that depends on the length only) the carry is done out of line.
func (k *kernel) zCounters(part string) {
	ADDB(U8(16), k.low.As8())
	JCS(k.ref("Carry" + part))
	for _, z := range zState {
		VPXORQ(zRound[0], zCount, z)
		VPADDD(cFourHigh, zCount, zCount)
	}
	k.label("Counted" + part)
	k.outOfLine = append(k.outOfLine, func() {
		k.label("Carry" + part)
		VPSHUFB(zBswap, zCount, zCount)
		zCountUp(4)
		VPSHUFB(zBswap, zCount, zCount)
		JMP(k.ref("Counted" + part))
	})
}

// zCountUp is zCounters for the first groups states, when zCount is bswapped.
func zCountUp(groups int) {
	for _, z := range zState[:groups] {
		VPSHUFB(zBswap, zCount, z)
		VPADDD(cFour, zCount, zCount)
		VPXORQ(zRound[0], z, z)
	}
}

// zRounds does all rounds but the last on sixteen blocks.
func zRounds() (list []step) {
	for r := 1; r < 14; r++ {
		for _, z := range zState {
			list = append(list, func() { VAESENC(zRound[r], z, z) })
		}
	}
	return list
}

// zLast does the last round of sixteen blocks, with the data added to its key, and stores the result. When sealing, it is
// also left in zData, for zHash to absorb while the next blocks are encrypted.
func (k *kernel) zLast() (list []step) {
	for i, z := range zState {
		out := z
		if k.seal {
			out = zData[i]
		}
		list = append(list, func() { VPXORQ(at(k.src, 64*i), zRound[14], zMask) },
			func() { VAESENCLAST(zMask, z, out) }, func() { VMOVDQU64(out, at(k.dst, 64*i)) })
	}
	return list
}

// zSixteen does the next sixteen blocks and, between the rounds, hash: of these blocks when opening, of those before them
// when sealing.
func (k *kernel) zSixteen(part string, hash []step) {
	if !k.seal {
		for i, d := range zData {
			VMOVDQU64(at(k.src, 64*i), d)
		}
	}
	k.zCounters(part)
	weave(zRounds(), hash)
	run(k.zLast())
	k.advance(256)
}

// zProduct adds the products of d and pow to the sums, or begins the sums with them.
func zProduct(begin bool, pow, d reg.Register) (list []step) {
	sum := func(imm uint8, to reg.Register, begin bool) step {
		if begin {
			return func() { VPCLMULQDQ(U8(imm), pow, d, to) }
		}
		return func() {
			VPCLMULQDQ(U8(imm), pow, d, zT)
			VPXORQ(zT, to, to)
		}
	}
	return []step{sum(0x00, zLo, begin), sum(0x01, zMi, begin), sum(0x11, zHi, begin), sum(0x10, zMi, false)}
}

// zHash adds the sixteen blocks in zData, the first times H^power, to the sums, or begins the sums with them and with the
// value so far, which should be needed as late as possible.
//
// Each block has the power of H that its place calls for only if bring is true; then the sum of the lanes, after zReduce, is
// the GHASH value. Else all four lanes of a group have the power of the first, which makes lane i, after zReduce, H^i times
// too great; that is right for a lane that will be added to a later group, where lane i stands i blocks behind the first.
func zHash(s reg.Register, power int, begin, bring bool) (list []step) {
	load := func(power int) {
		if bring {
			VMOVDQU64(at(s, offPower(power)), zPow)
		} else {
			VBROADCASTI32X4(at(s, offPower(power)), zPow)
		}
	}
	mul := func(imm uint8, d, to reg.Register) step { return func() { VPCLMULQDQ(U8(imm), zPow, d, to) } }
	add := func(x, y, to reg.Register) step { return func() { VPTERNLOGQ(U8(xor3), x, y, to) } }
	for i := 3; i > 0; i -= 2 {
		a, b := zData[i], zData[i-1]
		list = append(list, func() { VPSHUFB(zBswap, a, a) }, func() { load(power - 4*i) })
		if begin && i == 3 {
			list = append(list, mul(0x01, a, zMi), mul(0x10, a, zMask), mul(0x00, a, zLo), mul(0x11, a, zHi),
				func() { VPXORQ(zMask, zMi, zMi) }, func() { VPXORQ(zT, zT, zT) }, func() { VPXORQ(a, a, a) })
		} else {
			list = append(list, mul(0x01, a, zT), mul(0x10, a, zMask), add(zT, zMask, zMi), mul(0x00, a, zT), mul(0x11, a, a))
		}
		list = append(list, func() { VPSHUFB(zBswap, b, b) }, func() { load(power - 4*(i-1)) })
		if begin && i == 1 {
			list = append(list, func() { VPXORQ(zAcc, b, b) })
		}
		// The low and the high product of a still wait, in zT and a.
		list = append(list, mul(0x00, b, zMask), add(zT, zMask, zLo), mul(0x11, b, zT), add(a, zT, zHi),
			mul(0x01, b, zT), mul(0x10, b, b), add(zT, b, zMi))
	}
	return list
}

// zReduce turns the sums into the GHASH value of each lane.
func zReduce() []step {
	return []step{
		func() { VBROADCASTI32X4(cPoly, zPow) },
		func() { VPCLMULQDQ(U8(0x01), zLo, zPow, zT) },
		func() { VPSHUFD(U8(0x4e), zLo, zLo) },
		func() { VPTERNLOGQ(U8(xor3), zT, zLo, zMi) },
		func() { VPCLMULQDQ(U8(0x01), zMi, zPow, zT) },
		func() { VPSHUFD(U8(0x4e), zMi, zAcc) },
		func() { VPTERNLOGQ(U8(xor3), zT, zHi, zAcc) },
	}
}

// zFold adds the lanes of zAcc.
func zFold() {
	VEXTRACTI64X4(U8(1), zAcc, zT.AsY())
	VPXORQ(zT.AsY(), zAcc.AsY(), zAcc.AsY())
	VEXTRACTI32X4(U8(1), zAcc.AsY(), zT.AsX())
	VPXORQ(zT.AsX(), zAcc.AsX(), zAcc.AsX())
}

// zLengths begins the sums with the product of the length block and H; only says that no other block is left.
func (k *kernel) zLengths(only bool) {
	x := zPow.AsX()
	k.lengths(x)
	if only {
		VPXORQ(zAcc.AsX(), x, x)
	}
	VMOVDQU64(at(k.s, offPower(1)), zT.AsX())
	VPCLMULQDQ(U8(0x00), zT.AsX(), x, zLo.AsX())
	VPCLMULQDQ(U8(0x01), zT.AsX(), x, zMi.AsX())
	VPCLMULQDQ(U8(0x11), zT.AsX(), x, zHi.AsX())
	VPCLMULQDQ(U8(0x10), zT.AsX(), x, zT.AsX())
	VPXORQ(zT, zMi, zMi)
}

// zBytes sets K1 to the bytes that the last of so many groups of 64 bytes has.
func (k *kernel) zBytes(left reg.Register, groups int) {
	ones, rest := GP64(), GP64()
	MOVQ(I32(-1), ones)
	LEAQ(at(left, -64*(groups-1)), rest)
	BZHIQ(rest, ones, ones)
	KMOVQ(ones, reg.K1)
}

// zTail does the last 1 to 256 bytes, which are in so many groups of 64, and the tag mask.
func (k *kernel) zTail(groups int) {
	mask, last := zMask.AsX(), groups-1
	state, data := zState[:groups], zData[:groups]
	k.zBytes(k.left, groups)
	pow := k.powers(k.left, 2)

	// Sealing needs the data only for the last round, opening absorbs them between the rounds.
	for i, z := range data {
		k.zLoad(i, last, z)
		if k.seal {
			VPXORQ(zRound[14], z, z)
		} else {
			VPSHUFB(zBswap, z, z)
		}
	}
	zCountUp(groups)
	VPXORQ(zRound[0].AsX(), mask, mask)
	var rounds []step
	for r := 1; r < 14; r++ {
		for _, z := range state {
			rounds = append(rounds, func() { VAESENC(zRound[r], z, z) })
		}
		rounds = append(rounds, func() { VAESENC(zRound[r].AsX(), mask, mask) })
	}
	rounds = append(rounds, func() { VAESENCLAST(zRound[14].AsX(), mask, mask) })
	if k.seal {
		run(rounds)
	} else {
		weave(rounds, zProducts(pow, data))
	}

	for i, z := range state {
		if k.seal {
			VAESENCLAST(data[i], z, z)
		} else {
			k.zLoad(i, last, zPow)
			VPXORQ(zRound[14], zPow, zPow)
			VAESENCLAST(zPow, z, z)
		}
		if i < last {
			VMOVDQU64(z, at(k.dst, 64*i))
		} else {
			VMOVDQU8(z, reg.K1, at(k.dst, 64*i))
		}
	}
	if k.seal {
		// What lies behind the last byte is key stream, not ciphertext.
		VMOVDQU8_Z(state[last], reg.K1, state[last])
		for _, z := range state {
			VPSHUFB(zBswap, z, z)
		}
		run(zProducts(pow, state))
	}
}

// zLoad loads group i of the tail; of the last group, only the bytes that are there.
func (k *kernel) zLoad(i, last int, z reg.VecPhysical) {
	if i < last {
		VMOVDQU64(at(k.src, 64*i), z)
	} else {
		VMOVDQU8_Z(at(k.src, 64*i), reg.K1, z)
	}
}

// zProducts adds the value so far and the bswapped groups of blocks, times the powers of H at pow, to the sums.
func zProducts(pow reg.Register, blocks []reg.VecPhysical) (list []step) {
	for i := len(blocks) - 1; i >= 0; i-- {
		if i == 0 {
			list = append(list, func() { VPXORQ(zAcc, blocks[0], blocks[0]) })
		}
		list = append(list, func() { VMOVDQU64(at(pow, 64*i), zPow) })
		list = append(list, zProduct(false, zPow, blocks[i])...)
	}
	return list
}

// zAdditional absorbs the additional data, 64 bytes at a time; only the last group may be shorter.
func (k *kernel) zAdditional() {
	ad, left := Load(Param("ad"), GP64()), GP64()
	MOVQ(k.adn, left)
	full, part := k.ref("AdFull"), k.ref("AdPart")
	CMPQ(left, U32(64))
	JB(part)
	k.label("AdFull")
	VMOVDQU64(at(ad, 0), zData[0])
	VMOVDQU64(at(k.s, offPower(4)), zPow)
	k.zAbsorb()
	ADDQ(U32(64), ad)
	SUBQ(U32(64), left)
	CMPQ(left, U32(64))
	JAE(full)
	TESTQ(left, left)
	JZ(k.ref("Data"))
	k.label("AdPart")
	k.zBytes(left, 1)
	pow := k.powers(left, 1)
	VMOVDQU8_Z(at(ad, 0), reg.K1, zData[0])
	VMOVDQU64(at(pow, 0), zPow)
	k.zAbsorb()
}

// zAbsorb absorbs the blocks in zData[0], whose powers of H are in zPow.
func (k *kernel) zAbsorb() {
	VPSHUFB(zBswap, zData[0], zData[0])
	VPXORQ(zAcc, zData[0], zData[0])
	run(zProduct(true, zPow, zData[0]), zReduce())
	zFold()
}
