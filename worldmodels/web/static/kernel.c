// The two loops of the dream player that need speed, as WebAssembly with 128-bit SIMD.
//
//   clang-14 --target=wasm32 -O3 -msimd128 -nostdlib -Wl,--no-entry -Wl,--export=multiply \
//     -Wl,--export=spread -Wl,--export=__heap_base -Wl,--strip-all -o kernel.wasm kernel.c
//
// `engine.js` owns the memory beyond __heap_base and calls these with addresses in it.

#include <wasm_simd128.h>

#define PANEL 8 // columns of B that lie together: for every k, 8 numbers

typedef v128_t four;

static inline four plus_product(four sum, four a, four b) {
  return wasm_f32x4_add(sum, wasm_f32x4_mul(a, b));
}

// out (m, n) = a (m, k) times b (k, n). n is a multiple of 8, and b is packed as (n / 8, k, 8).
void multiply(const float *a, const float *b, float *out, int m, int n, int k) {
  for (int j = 0; j < n; j += PANEL, b += PANEL * k) {
    int i = 0;
    for (; i + 4 <= m; i += 4) {
      const float *a0 = a + i * k, *a1 = a0 + k, *a2 = a1 + k, *a3 = a2 + k, *p = b;
      four zero = wasm_f32x4_splat(0), c00 = zero, c01 = zero, c10 = zero, c11 = zero;
      four c20 = zero, c21 = zero, c30 = zero, c31 = zero;
      for (int t = 0; t < k; t++, p += PANEL) {
        four b0 = wasm_v128_load(p), b1 = wasm_v128_load(p + 4), x;
        x = wasm_v128_load32_splat(a0 + t), c00 = plus_product(c00, x, b0), c01 = plus_product(c01, x, b1);
        x = wasm_v128_load32_splat(a1 + t), c10 = plus_product(c10, x, b0), c11 = plus_product(c11, x, b1);
        x = wasm_v128_load32_splat(a2 + t), c20 = plus_product(c20, x, b0), c21 = plus_product(c21, x, b1);
        x = wasm_v128_load32_splat(a3 + t), c30 = plus_product(c30, x, b0), c31 = plus_product(c31, x, b1);
      }
      float *o = out + i * n + j;
      wasm_v128_store(o, c00), wasm_v128_store(o + 4, c01), o += n;
      wasm_v128_store(o, c10), wasm_v128_store(o + 4, c11), o += n;
      wasm_v128_store(o, c20), wasm_v128_store(o + 4, c21), o += n;
      wasm_v128_store(o, c30), wasm_v128_store(o + 4, c31);
    }
    for (; i < m; i++) {
      const float *row = a + i * k, *p = b;
      four c0 = wasm_f32x4_splat(0), c1 = c0;
      for (int t = 0; t < k; t++, p += PANEL) {
        four x = wasm_v128_load32_splat(row + t);
        c0 = plus_product(c0, x, wasm_v128_load(p));
        c1 = plus_product(c1, x, wasm_v128_load(p + 4));
      }
      wasm_v128_store(out + i * n + j, c0), wasm_v128_store(out + i * n + j + 4, c1);
    }
  }
}

// The second half of a transposed convolution of stride 2: add the patch of every pixel where it
// belongs. products (side * side, n) hold patches (kernel, kernel, channels), out is
// (2 side - 2 + kernel) squared with these channels, and begins at the bias (channels).
void spread(const float *products, const float *bias, float *out, int side, int kernel,
            int channels, int n, int relu) {
  int wide = 2 * side - 2 + kernel, total = wide * wide * channels, run = kernel * channels;
  for (int i = 0; i < total; i += channels)
    for (int c = 0; c < channels; c++) out[i + c] = bias[c];
  for (int y = 0; y < side; y++)
    for (int x = 0; x < side; x++, products += n)
      for (int row = 0; row < kernel; row++) {
        float *to = out + ((2 * y + row) * wide + 2 * x) * channels;
        const float *from = products + row * run;
        int i = 0;
        for (; i + 4 <= run; i += 4)
          wasm_v128_store(to + i, wasm_f32x4_add(wasm_v128_load(to + i), wasm_v128_load(from + i)));
        for (; i < run; i++) to[i] += from[i];
      }
  if (relu)
    for (int i = 0; i < total; i++) out[i] = out[i] > 0 ? out[i] : 0;
}
