//go:build cuda && linux && amd64

/* Loads the driver at run time. The cu* functions are defined here, as jumps
   through a table that cuInit fills from libcuda.so.1; gorgonia.org/cu calls them
   without knowing. Its init function ends the process if cuInit fails, so ours
   answers success always and keeps the result for neuralode_cu_status. */

#include <dlfcn.h>
#include <stddef.h>

#define NOT_INITIALIZED 3
#define NO_DEVICE 100
#define NOT_FOUND 500

static int not_initialized(void) { return NOT_INITIALIZED; }
static int not_found(void) { return NOT_FOUND; }

static const char *const names[] = {
#define X(name) #name,
#include "symbols.h"
#undef X
};
enum { COUNT = sizeof names / sizeof *names };

__attribute__((visibility("hidden"))) void *neuralode_cu[COUNT];

#define TEXT(x) #x
#define STUB(name, i)                                                        \
  __asm__(".pushsection .text\n.globl " #name "\n.type " #name ",@function\n" \
          #name ": jmp *neuralode_cu+8*" TEXT(i) "(%rip)\n.popsection\n");
#define NUMBERED(name, i) STUB(name, i)
#define X(name) NUMBERED(name, __COUNTER__)
#include "symbols.h"
#undef X

static int status = NOT_INITIALIZED;
static const char *reason = "the driver was not initialised";

__attribute__((constructor)) static void unbound(void) {
  for (int i = 0; i < COUNT; i++) neuralode_cu[i] = (void *)not_initialized;
}

int cuInit(unsigned flags) {
  void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  if (!lib) {
    status = NO_DEVICE;
    reason = dlerror();
    return 0;
  }
  int (*init)(unsigned) = (int (*)(unsigned))dlsym(lib, "cuInit");
  status = init ? init(flags) : NOT_FOUND;
  reason = NULL;
  for (int i = 0; i < COUNT; i++) {
    void *f = dlsym(lib, names[i]);
    neuralode_cu[i] = f ? f : (void *)not_found;
  }
  return 0;
}

int neuralode_cu_status(void) { return status; }

/* Why there is no library, NULL if there is one. Lives as long as the process. */
const char *neuralode_cu_reason(void) { return reason; }
