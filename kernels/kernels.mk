# The CUDA kernels and the tests of the GPU backend. Only `make kernels` and
# `make kernels-check` need nvcc; only building with -tags cuda needs cuda.h.

NVCC      ?= nvcc
PTXAS     ?= ptxas
NVCCFLAGS ?= -std=c++17 -O3
# How nvcc numbers registers depends on where its memory lies, so it has to lie still.
FIXED     ?= setarch -R
# What PTX is made for, and what ptxas compiles it to for the resource table.
PTX_TARGETS ?= 60 80
SM_TARGETS  ?= 60 70 80 90

# $(call to_ptx,TARGET,SOURCE,OUTPUT) compiles one file. nvcc puts a hash of the source's
# absolute path into the names of local variables; the PTX must not depend on that.
to_ptx = $(FIXED) $(NVCC) $(NVCCFLAGS) -arch=compute_$(1) -ptx -o $(3) $(2) && sed -i -E 's/_INTERNAL_[0-9a-f]{8}_/_INTERNAL_00000000_/g' $(3)

KERNELS := $(basename $(notdir $(wildcard kernels/*.cu)))
PTX     := $(foreach k,$(KERNELS),$(foreach t,$(PTX_TARGETS),kernels/ptx/$(k).sm_$(t).ptx))

.PHONY: kernels kernels-check kernels-resources

kernels: $(PTX) ## compile the CUDA kernels to the PTX that is committed (needs nvcc 11.8)

define ptx_rule
kernels/ptx/%.sm_$(1).ptx: kernels/%.cu $(wildcard kernels/*.cuh)
	$$(call to_ptx,$(1),$$<,$$@)
endef
$(foreach t,$(PTX_TARGETS),$(eval $(call ptx_rule,$(t))))

kernels-check: ## compare the committed PTX with the sources, and what ptxas makes of it with kernels/resources.txt
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	for k in $(KERNELS); do for t in $(PTX_TARGETS); do \
		$(call to_ptx,$$t,kernels/$$k.cu,$$dir/$$k.sm_$$t.ptx); \
		cmp $$dir/$$k.sm_$$t.ptx kernels/ptx/$$k.sm_$$t.ptx || \
			{ echo "kernels/ptx/$$k.sm_$$t.ptx is not what nvcc 11.8 makes of the source; run make kernels"; exit 1; }; \
	done; done; \
	for f in kernels/ptx/*.ptx; do test -e $$dir/$${f##*/} || { echo "$$f has no source"; exit 1; }; done
	$(GO) run ./kernels/resources -ptxas $(PTXAS) -sm "$(SM_TARGETS)"

kernels-resources: ## write kernels/resources.txt anew
	$(GO) run ./kernels/resources -ptxas $(PTXAS) -sm "$(SM_TARGETS)" -write
