// Command _asm writes the assembly of package aead: run it with "go generate" in the parent directory.
//
// The numbers in the comments below are for one reflected 128-bit GHASH element per 16-byte lane, "bswapped" meaning that
// the sixteen bytes of a block are reversed so that the block is a little-endian integer whose bits GHASH reads backwards.
package main

import (
	"fmt"
	"strconv"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Layout of the schedule of one key, in bytes. Package aead declares an array of scheduleSize bytes.
const (
	powers       = 20                    // how many successive powers of H are kept
	offRounds    = 0                     // 15 round keys
	offPowers    = offRounds + 15*16     // H^20, H^19 ... H^1, each multiplied by x
	offMore      = offPowers + powers*16 // H^24, H^28, H^32; the tail code reads 32 of these bytes too, times zero
	offHalves    = offMore + 3*16        // AVX2: sums of the halves of H^16 and H^8, H^15 and H^7 ... H^9 and H^1
	scheduleSize = offHalves + 8*16
)

// offPower is the offset of H^e.
func offPower(e int) int {
	if e > powers {
		return offMore + (e-24)/4*16
	}
	return offPowers + (powers-e)*16
}

// Constants in read-only memory.
var (
	cBswap    Mem // reverses the bytes of each 16-byte lane
	cPoly     Mem // GHASH polynomial for reduction: low quadword 1, high quadword 0xc2<<56
	cCount    Mem // 0, 1, 2, 3, 4 in the low doubleword of successive 16-byte lanes
	cFour     Mem // 4 in the low doubleword of each lane
	cFourHigh Mem // 4 in the last byte of each lane
	cTwos     Mem // 0, 0, 2, 2, 4, 4 ... 16, 16 in the low doubleword of successive 16-byte lanes
	cTwosHigh Mem // the same in the last byte of the lanes
	cWindow   Mem // 32 bytes of ones, 32 bytes of zeros
	cRotate   Mem // takes the last word of a round key, rotated, into every word
)

func constants() {
	cBswap = GLOBL("gcm_bswap", RODATA|NOPTR)
	for lane := 0; lane < 4; lane++ {
		DATA(16*lane, U64(0x08090a0b0c0d0e0f))
		DATA(16*lane+8, U64(0x0001020304050607))
	}
	cPoly = GLOBL("gcm_poly", RODATA|NOPTR)
	for lane := 0; lane < 4; lane++ {
		DATA(16*lane, U64(1))
		DATA(16*lane+8, U64(0xc200000000000000))
	}
	cCount = GLOBL("gcm_count", RODATA|NOPTR)
	for lane := 0; lane < 5; lane++ {
		DATA(16*lane, U64(lane))
		DATA(16*lane+8, U64(0))
	}
	cFour = GLOBL("gcm_four", RODATA|NOPTR)
	for lane := 0; lane < 4; lane++ {
		DATA(16*lane, U64(4))
		DATA(16*lane+8, U64(0))
	}
	cFourHigh = GLOBL("gcm_four_high", RODATA|NOPTR)
	for lane := 0; lane < 4; lane++ {
		DATA(16*lane, U64(0))
		DATA(16*lane+8, U64(4<<56))
	}
	cTwosHigh = GLOBL("gcm_twos_high", RODATA|NOPTR)
	for lane := 0; lane < 18; lane++ {
		DATA(16*lane, U64(0))
		DATA(16*lane+8, U64(lane&^1<<56))
	}
	cTwos = GLOBL("gcm_twos", RODATA|NOPTR)
	for lane := 0; lane < 18; lane++ {
		DATA(16*lane, U64(lane&^1))
		DATA(16*lane+8, U64(0))
	}
	cWindow = GLOBL("gcm_window", RODATA|NOPTR)
	for i := 0; i < 64; i += 8 {
		DATA(i, U64(uint64(int64(i/8-4)>>63)))
	}
	cRotate = GLOBL("gcm_rotate", RODATA|NOPTR)
	DATA(0, U64(0x0c0f0e0d0c0f0e0d))
	DATA(8, U64(0x0c0f0e0d0c0f0e0d))
}

// identity emits a function that returns its argument.
func identity() {
	TEXT("identity", NOSPLIT, "func(p *byte) *byte")
	Pragma("noescape")
	Doc("identity returns p.")
	Store(Load(Param("p"), GP64()), ReturnIndex(0))
	RET()
}

// step is one or a few instructions that belong together; lists of steps are interleaved by weave.
type step func()

// weave emits the steps of a in order and spreads the steps of b evenly between them.
func weave(a, b []step) {
	done := 0
	for i, s := range a {
		s()
		for ; done*len(a) < (i+1)*len(b); done++ {
			b[done]()
		}
	}
}

func run(list ...[]step) {
	for _, l := range list {
		for _, s := range l {
			s()
		}
	}
}

// kernel is what the code of one assembly function shares.
type kernel struct {
	name                       string
	seal                       bool
	s, nonce, n, src, dst, adn reg.Register
	left                       reg.Register  // bytes not yet done
	low                        reg.GPVirtual // AVX-512: last byte of the next counter block
	scratch                    reg.Register  // AVX2: address of 32 bytes on the stack
	outOfLine                  []func()
}

// begin begins a function that seals or opens a message.
func begin(name string, seal bool) *kernel {
	result, doc := "", "%s encrypts n bytes from src to dst and appends the tag."
	if !seal {
		result, doc = " (ok bool)", "%s decrypts n bytes from src to dst and reports whether the tag behind src is right."
	}
	TEXT(name, NOSPLIT, "func(s, dst, src *byte, n int, nonce, ad *byte, adn int)"+result)
	Pragma("noescape")
	Doc(fmt.Sprintf(doc, name))
	return &kernel{name: name, seal: seal, s: Load(Param("s"), GP64()), nonce: Load(Param("nonce"), GP64()),
		n: Load(Param("n"), GP64()), src: Load(Param("src"), GP64()), dst: Load(Param("dst"), GP64()),
		adn: Load(Param("adn"), GP64()), left: GP64(), low: GP32()}
}

// setOK makes the function return whether the zero flag is set.
func (k *kernel) setOK() {
	ok := GP8()
	SETEQ(ok)
	Store(ok, ReturnIndex(0))
}

// lengths puts the bswapped length block into x.
func (k *kernel) lengths(x reg.Register) {
	bits := GP64()
	MOVQ(k.n, bits)
	SHLQ(U8(3), bits)
	VMOVQ(bits, x)
	MOVQ(k.adn, bits)
	SHLQ(U8(3), bits)
	VPINSRQ(U8(1), bits, x, x)
}

// powers returns the address of the powers of H for the blocks that the left bytes make, the last of which gets H^last.
func (k *kernel) powers(left reg.Register, last int) reg.Register {
	length, pow := GP64(), GP64()
	LEAQ(at(left, 15), length)
	ANDQ(I32(-16), length)
	LEAQ(at(k.s, offPower(last)+16), pow)
	SUBQ(length, pow)
	return pow
}

// ref names the label of a part of the function, numbered if there are several like it.
func (k *kernel) ref(part string, i ...int) LabelRef {
	if len(i) > 0 {
		part += strconv.Itoa(i[0])
	}
	return LabelRef(k.name + part)
}

func (k *kernel) label(part string, i ...int) { Label(string(k.ref(part, i...))) }

// advance moves on by so many bytes.
func (k *kernel) advance(bytes int) {
	ADDQ(U32(bytes), k.src)
	ADDQ(U32(bytes), k.dst)
	SUBQ(U32(bytes), k.left)
}

func rk(key reg.Register, i int) Mem { return Mem{Base: key, Disp: offRounds + 16*i} }

func at(base reg.Register, disp int) Mem { return Mem{Base: base, Disp: disp} }

// at1 is the memory at base + index.
func at1(base, index reg.Register) Mem { return Mem{Base: base, Index: index, Scale: 1} }

func main() {
	ConstraintExpr("amd64,!purego")
	constants()
	identity()
	expandKey()
	avx512("sealAVX512", true)
	avx512("openAVX512", false)
	avx2("sealAVX2", true)
	avx2("openAVX2", false)
	Generate()
}
