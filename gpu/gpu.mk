# The GPU backend: its tests and its benchmark. They, and make demo BACKEND=gpu, need
# cuda.h and a C compiler.
# They run on a device, or under a stand-in for the driver that executes the kernels on
# the CPU: STANDIN is the folder of its libcuda.so.1.

STANDIN ?=
CUDA_ENV := CGO_CFLAGS="-I$(CURDIR)/gpu/compat $(CGO_CFLAGS)" $(if $(STANDIN),LD_LIBRARY_PATH="$(STANDIN):$$LD_LIBRARY_PATH")

# What the stand-in varies: the order in which work runs and how late, what it looks for,
# and the device that it is. Without a mode it runs in order, on sm_80.
STANDIN_MODES := CUDASIM_ASYNC=lazy,CUDASIM_SEED=1,CUDASIM_SM=70 CUDASIM_ASYNC=lazy,CUDASIM_SEED=2,CUDASIM_SM=75 \
	CUDASIM_ASYNC=lazy,CUDASIM_SEED=3,CUDASIM_SM=90 CUDASIM_RACECHECK=1 CUDASIM_LEAKCHECK=1

.PHONY: test-gpu test-gpu-modes bench-gpu

# A stand-in runs on the CPU, mostly on one core: the modes run beside the whole suite.
test-gpu: ## test the GPU backend; STANDIN=folder of a stand-in for libcuda.so.1, if there is no device
	$(CUDA_ENV) $(GO) vet -tags cuda ./gpu/... ./bench/gpu ./demo
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; modes=; \
	if [ -n "$(STANDIN)" ]; then $(MAKE) -s test-gpu-modes >"$$log" 2>&1 & modes=$$!; fi; \
	code=0; \
	$(CUDA_ENV) $(GO) test -tags cuda -count=1 -timeout 40m ./gpu/... || code=1; \
	$(CUDA_ENV) $(GO) test -tags cuda -count=1 -run GPU ./demo || code=1; \
	if [ -n "$$modes" ]; then wait $$modes || code=1; cat "$$log"; fi; \
	exit $$code

test-gpu-modes: # what depends on the order of work, in every mode of the stand-in
	@set -e; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; for mode in $(STANDIN_MODES); do \
		echo "$$mode"; \
		case $$mode in *SEED=1,*|*RACECHECK*) more='|TestFusedAdjoint_Masked|TestEnsemble_SamplesAreAlone' ;; *) more= ;; esac; \
		env $$(echo $$mode | tr , ' ') $(CUDA_ENV) $(GO) test -tags cuda -count=1 -timeout 40m -v -run '^(TestConformance|TestSolve_Reruns|TestSolve_Precision|TestFused_SamplesAreAlone'"$$more"')$$' ./gpu >$$log 2>&1 \
			|| { grep -v '^=== RUN' $$log; exit 1; }; \
		if grep -E '\[cudasim\] .*(leak|race): ' $$log; then exit 1; fi; \
		grep -E '^(---|ok)' $$log; \
	done

bench-gpu: ## time the GPU backend beside what the device can do and the CPU backend; BENCH_GPU_FLAGS="-markdown FILE -json FILE"
	$(CUDA_ENV) $(GO) run -tags cuda ./bench/gpu $(BENCH_GPU_FLAGS)
