# The CUDA kernels and the tests of the GPU backend. Only `make kernels` and
# `make kernels-check` need nvcc; only building with -tags cuda needs cuda.h.

NVCC      ?= nvcc
PTXAS     ?= ptxas
NVCCFLAGS ?= -std=c++17 -O3
# What PTX is made for, and what ptxas compiles it to for the resource table.
PTX_TARGETS ?= 60 80
SM_TARGETS  ?= 60 70 80 90

# $(call to_ptx,TARGET,FAMILY,OUTPUT) compiles one family. How nvcc numbers registers and
# names local variables depends on paths, on the environment and on where its memory
# lies; so it is run with none of its own, always in the same folder.
PTX_FOLDER := /tmp/neuralode-ptx
to_ptx = rm -rf $(PTX_FOLDER) && mkdir $(PTX_FOLDER) && cp kernels/*.cu kernels/*.cuh $(PTX_FOLDER) && \
	nvcc=$$(command -v $(NVCC)) && (cd $(PTX_FOLDER) && env -i PATH=/usr/bin:/bin setarch -R $$nvcc $(NVCCFLAGS) -arch=compute_$(1) -ptx -o out.ptx $(2).cu) && \
	mv $(PTX_FOLDER)/out.ptx $(3) && rm -rf $(PTX_FOLDER)

KERNELS := $(basename $(notdir $(wildcard kernels/*.cu)))
# The families on tensor cores need the highest target.
TENSOR  := mlp_tf32 mlp_tf32x3 mlp_bf16
PTX     := $(foreach k,$(KERNELS),$(foreach t,$(if $(filter $(k),$(TENSOR)),80,$(PTX_TARGETS)),kernels/ptx/$(k).sm_$(t).ptx))

.PHONY: kernels kernels-check kernels-resources
.NOTPARALLEL: # PTX_FOLDER is one

kernels: $(PTX) ## compile the CUDA kernels to the PTX that is committed (needs nvcc 11.8)

define ptx_rule
kernels/ptx/%.sm_$(1).ptx: kernels/%.cu $(wildcard kernels/*.cuh)
	$$(call to_ptx,$(1),$$*,$$@)
endef
$(foreach t,$(PTX_TARGETS),$(eval $(call ptx_rule,$(t))))

kernels-check: ## compare the committed PTX with the sources, and what ptxas makes of it with kernels/resources.txt
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	for f in $(notdir $(PTX)); do \
		k=$${f%.sm_*}; t=$${f##*.sm_}; $(call to_ptx,$${t%.ptx},$$k,$$dir/$$f); \
		cmp $$dir/$$f kernels/ptx/$$f || \
			{ echo "kernels/ptx/$$f is not what nvcc 11.8 makes of the source; run make kernels"; exit 1; }; \
	done; \
	for f in kernels/ptx/*.ptx; do test -e $$dir/$${f##*/} || { echo "$$f has no source"; exit 1; }; done
	$(GO) run ./kernels/resources -ptxas $(PTXAS) -sm "$(SM_TARGETS)"

kernels-resources: ## write kernels/resources.txt anew
	$(GO) run ./kernels/resources -ptxas $(PTXAS) -sm "$(SM_TARGETS)" -write
