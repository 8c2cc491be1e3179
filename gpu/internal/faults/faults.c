//go:build cuda && linux && amd64

/* Puts itself between the program and the driver: every entry of the table in
   ../driver/lazy.c is replaced by a jump through count, which lets the call pass or
   answers a failure in its place. */

#include <stddef.h>

#define TEXT(x) #x

static const char *const names[] = {
#define X(name) #name,
#include "../driver/symbols.h"
#undef X
};
enum { COUNT = sizeof names / sizeof *names };

extern void *neuralode_cu[COUNT];

__attribute__((visibility("hidden"))) void *neuralode_real[COUNT];
__attribute__((visibility("hidden"))) int neuralode_calls[COUNT];
/* The call of number neuralode_fails (an index into names) that is
   neuralode_left-th from now on fails with neuralode_code. */
__attribute__((visibility("hidden"))) int neuralode_fails = -1, neuralode_left, neuralode_code;

/* No argument register may change; r10 and r11 are free between a call and its
   function. */
__asm__(
    ".pushsection .text\n"
    "neuralode_count:\n"
    "  leaq neuralode_calls(%rip), %r10\n"
    "  lock incl (%r10,%r11,4)\n"
    "  cmpl %r11d, neuralode_fails(%rip)\n"
    "  jne 1f\n"
    "  lock decl neuralode_left(%rip)\n"
    "  jne 1f\n"
    "  movl neuralode_code(%rip), %eax\n"
    "  ret\n"
    "1: leaq neuralode_real(%rip), %r10\n"
    "  jmp *(%r10,%r11,8)\n"
    ".popsection\n");

#define STUB(name, i)                                             \
  __asm__(".pushsection .text\nneuralode_count_" #name ":\n"      \
          "  movl $" TEXT(i) ", %r11d\n  jmp neuralode_count\n"   \
          ".popsection\n");                                       \
  extern char neuralode_count_##name[] __attribute__((visibility("hidden")));
#define NUMBERED(name, i) STUB(name, i)
#define X(name) NUMBERED(name, __COUNTER__)
#include "../driver/symbols.h"
#undef X

static void *const stubs[] = {
#define X(name) neuralode_count_##name,
#include "../driver/symbols.h"
#undef X
};

void neuralode_faults_install(void) {
  for (int i = 0; i < COUNT; i++) {
    neuralode_real[i] = neuralode_cu[i];
    neuralode_cu[i] = stubs[i];
  }
}

int neuralode_faults_count(void) { return COUNT; }
const char *neuralode_faults_name(int i) { return names[i]; }
int neuralode_faults_calls(int i) { return __atomic_load_n(&neuralode_calls[i], __ATOMIC_RELAXED); }

void neuralode_faults_arm(int i, int n, int code) {
  neuralode_left = n;
  neuralode_code = code;
  __atomic_store_n(&neuralode_fails, i, __ATOMIC_SEQ_CST);
}

int neuralode_faults_left(void) { return neuralode_left; }
