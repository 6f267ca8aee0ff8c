"""Eight images at once on one core: how the simd engine computes, from the layout to the tiles.

Layout
------
Local SGD trains with small batches, 8 images in the paper. Every feature map is therefore stored
with the image as its innermost axis, [C, S, S, 8] for C channels of S x S pixels: a vector of 8
floats is one pixel of 8 images (`vector`). No operation of the network mixes images before the
loss, so every operation acts on whole vectors, lane by lane, and the lanes never meet but in sums
of gradients. A batch of another size goes in turns of 8; lanes without an image hold zeros and an
error of zero.

A map that a 3x3 convolution reads carries a border of one zero pixel, [C, S+2, S+2, 8]; it is
written once, when the memory is made, and nothing touches it again. Names of such maps end in
``_b``. With S = 4 one channel of a bordered map is

        0   1   2   3   4   5           pixel (y, x) of the image lies at (y+1) row + (x+1) 8,
      +---+---+---+---+---+---+         row = (S+2) 8 floats
    0 | 0 | 0 | 0 | 0 | 0 | 0 |
      +---+===+===+===+===+---+         the window of output pixel (y, x) starts at y row + x 8,
    1 | 0 |   |   |   |   | 0 |         one row and one pixel further up and left:
      +---+---+---+---+---+---+
    2 | 0 |   | a | b | c | 0 |           tap (a, b) of the kernel lies a row + b 8 from there
      +---+---+---+---+---+---+
    3 | 0 |   | d | e | f | 0 |
      +---+---+---+---+---+---+
    4 | 0 |   | g | h | i | 0 |
      +---+===+===+===+===+---+
    5 | 0 | 0 | 0 | 0 | 0 | 0 |
      +---+---+---+---+---+---+

All maps of a thread lie in one array, the arena, and are known by the position of their first
float; all parameters lie in the flat vector of `deep.resnet`. `plan` hands out the positions and
keeps them as records. A block computes, with the names of `plan.BLOCK`,

    input_b -conv w_1-> y_1 -norm, relu-> hidden_b -conv w_2-> y_2 -norm-(+)-relu-> output_b
       |                                                                  |
       +----------- itself, or: -conv w_s-> y_s -norm-> shortcut_b -------+

and backward, from g_output: relu's mask, norm to g_y_b, weights and input of conv w_2 to g_hidden,
mask, norm to g_y_b again, weights and input of conv w_1 to g_input, which is the g_output of the
block below. Within a stage g_input is g_output itself: the identity's share lies there already, and
the convolution adds to it.

Taps
----
A convolution is y[o, p] = sum over channels i and taps t of w[o, i, t] x[i, p + offset(t)]. With
positions in flat arrays that is all there is: a list of pairs (offset into the map, offset into the
kernel), and strides from one pixel, row and channel to the next, for source and destination.

  forward, 3x3         9 taps (a row + b 8, 3 a + b)
  stride 2             the same taps; source pixels 2 x 8 floats apart, rows 2 row
  1x1 shortcut         1 tap (row + 8, 0), the pixel itself, behind the border
  gradient of input    x[i] receives w[o, i, a, b] from the error at output p - (a, b) + (1, 1):
                       taps ((2-a) row + (2-b) 8, 3 a + b), and o and i change places in w
  the same, stride 2   output h reaches input y when 2 h + a = y + 1: even y from a = 1 alone, odd y
                       from a = 0 and a = 2. Four lists of 1, 2, 2 and 4 taps, one for each parity
                       of (y, x), each a convolution that writes every second pixel

so one function, `kernels.conv`, does them all. Convolutions of stride 1 between maps of equal
shape go through Winograd's transforms instead where the shape suits (next but one section).

Tiles
-----
A processor multiplies and adds two vectors each cycle, if the numbers are in registers. A tile
computes several output channels at several pixels at once and keeps all its sums in registers over
all input channels and taps: n_out x n_px fused multiply-adds need n_px loads of pixels and n_out
broadcasts of weights.

              pixels of the source       registers:    sums  pixels  weight  of
                x0    x1    x2           4 x 3          12     3       1     16 (AVX2)
    weights   +-----+-----+-----+        8 x 4, wide    16     2       1     32 (AVX-512)
     w[o]     | a0  | a1  | a2  |
     w[o+1]   | b0  | b1  | b2  |        4 x 3: 12 fma for 3 loads and 4 broadcasts
     w[o+2]   | c0  | c1  | c2  |        8 x 4: two pixels in a register of 16 floats,
     w[o+3]   | e0  | e1  | e2  |               so 16 wide fma for 2 loads and 8 broadcasts
              +-----+-----+-----+               of weights packed in that order

Tiles of 4 x 2 and 1 x 1 take what is left over. The gradient of the weights turns this round: a
tile is 4 output channels by the 3 taps of a kernel row (wide: 8 by 3), the sums run over pixels,
and lanes are added at the very end, always in the same order. Tiles (`tiles`) are written out by
hand because neither Numba nor LLVM keeps an array of accumulators in registers.

Winograd's tiles
----------------
Two outputs of a convolution in one dimension, y0 = a x0 + b x1 + c x2 and y1 = a x1 + b x2 + c x3,
take 4 multiplications, not 6:

    m0 = (x0 - x2) a                       y0 = m0 + m1 + m2
    m1 = (x1 + x2) (a + b + c) / 2         y1 = m1 - m2 - m3
    m2 = (x2 - x1) (a - b + c) / 2
    m3 = (x1 - x3) c

In matrices: y = A^T [(G g) . (B^T x)], B^T taking the differences of x, G the sums of g, A^T the sums
of m. Along columns and rows one after the other it is F(2x2, 3x3), 16 multiplications for 36:

     4x4 pixels of the source         16 positions            2x2 outputs
    +---+---+---+---+             +----+----+----+----+
    | 0 | 1 | 2 | 3 |   B^T d B   | 0  | 1  | 2  | 3  |  times the kernel's
    +---+---+---+---+             +----+----+----+----+  position, summed      +---+---+
    |   |   |   |   |   ------>   | 4  | 5  | 6  | 7  |  over channels; then   |   |   |
    +---+---+---+---+             +----+----+----+----+  A^T m A               +---+---+
    |   |   |   |   |             | 8  | 9  | 10 | 11 |  ------------------->  |   |   |
    +---+---+---+---+             +----+----+----+----+                        +---+---+
    |   |   |   |   |             | 12 | 13 | 14 | 15 |
    +---+---+---+---+             +----+----+----+----+
      neighbours overlap by two columns

For every position that is a matrix product, channels by channels by tiles, which `products` computes
in register tiles of 8 x 4 as above; transforms (`winograd_transforms`) add whole vectors. Backward,
the input's gradient is the same with kernels turned round; the weights' gradient transforms errors
by A, and sums (A e A^T) . (B^T d B) over tiles and images. `suits` says which maps: channels in
eights, sides of 4 or a multiple of 8.

``benchmarks/deep_speed.py`` times rounds with and without (rows "simd" and "simd, direct").

Why results do not depend on the machine's threads: one node is one task from its first step to its
last, every sum has one order, and wide and narrow tiles add the same numbers in the same order.

Files, from the bottom: `vector` (instructions), `compiled` (Numba's cache), `tiles`, `kernels`
(convolution), `winograd_transforms`, `products`, `winograd`, `norms`, `plan` (positions),
`network` (forward, backward, steps), `engine` (threads).
"""
