// A whole solve of a narrow net, every sample with steps of its own, in one launch: what
// the kernels of clock.cu, rk.cu, tape.cu and mlp_forward.cu do one after another.
//
// A block owns 32·R places (fused.cuh) and takes lanes from a queue until there is none
// left. Its loop makes one evaluation of the net for all places, each with the input
//     Y_i = y + h·Σ_j a_ij·k_j
// of its own stage, and then what the attempts that are complete ask for: the error and
// the decision, stages for interpolation, outputs, the tape. No result depends on which
// block takes a lane, nor on the lanes beside it.
//
// In shared memory: Places, the method, the span, T(h·a) [place][stage], the net's input,
// biases and time columns, weights (narrow.cuh), and, if it fits, else in `sheets`,
//     [y, y at the end, k_0 … k_{P-1}][place][dim].
//
// Reference: Loop in internal/step/step.go on the CPU backend.
#include "fused.cuh"

template <class T, int R> struct Fused {
    static constexpr int ROWS = 32 * R;
    const FusedArgs<T> &a;

    // These are functions, so that no registers hold them.
    static __device__ T *shared() {
        extern __shared__ __align__(16) unsigned char raw[];
        return reinterpret_cast<T *>(raw);
    }
    static __device__ Places<T, ROWS> &at() { return *reinterpret_cast<Places<T, ROWS> *>(shared()); }
    __device__ ClockView clock() const { return {at().reals, at().wides, at().words, &at().span, ROWS, ROWS}; }
    __device__ Table table() const { return {(const double *)(shared() + a.table_at), all()}; }
    __device__ T *coef(int m) const { return shared() + a.coef_at + m * all(); }
    __device__ T *x() const { return shared() + a.x_at; }
    __device__ T *bias(int layer) const { return shared() + a.bias_at + 2 * MAX_WIDTH * layer; }
    __device__ int all() const { return a.stages + a.extra; }
    __device__ int dim() const { return a.net.dim; }
    __device__ T *sheet() const {
        return a.sheets ? a.sheets + (long long)blockIdx.x * (2 + all()) * ROWS * dim() : shared() + a.sheet_at;
    }
    __device__ T *y() const { return sheet(); }
    __device__ T *end() const { return sheet() + ROWS * dim(); }
    __device__ T *k(int j) const { return sheet() + (2 + j) * ROWS * dim(); }

    __device__ const SpanView &span(int m) const { return at().span.own ? at().span.own[at().lane[m]] : at().span; }
    __device__ double rel(const SpanView &s) const { return s.rel != 0 || s.abs != 0 ? s.rel : a.rel; }
    __device__ double abs(const SpanView &s) const { return s.rel != 0 || s.abs != 0 ? s.abs : a.abs; }

    // trial is the phase behind the first evaluation that the first step is chosen from.
    __device__ int trial() const { return all(); }
    __device__ int idle() const { return all() + 1; }
    __device__ bool evaluates(int m) const { return at().lane[m] >= 0 && at().phase[m] <= trial(); }
    // next is the phase in which an attempt begins.
    __device__ int next(bool stale) const { return stale ? 0 : a.stages > 1 ? 1 : idle(); }
    __device__ bool overdue(long long evaluations) const { return a.limit > 0 && evaluations >= a.limit; }

    // set_up fills shared memory with what all lanes share.
    __device__ void set_up() const {
        double *const t = (double *)(shared() + a.table_at);
        for (int i = threadIdx.x; i < Table::size(all(), a.powers); i += THREADS) t[i] = a.method[i];
        if (threadIdx.x < ROWS) {
            at().lane[threadIdx.x] = -1;
            at().left[threadIdx.x] = {};
            at().left[threadIdx.x].lane = -1;
        }
        const SpanView &from = *a.clk.span;
        if (threadIdx.x == 0) at().span = from;
        if (a.span) {
            // stops, saves, blocks and jumps lie one behind the other, as gpu/clock.go sends them.
            double *const to = (double *)(shared() + a.span_at);
            for (int i = threadIdx.x; i < a.span; i += THREADS) to[i] = from.stops[i];
            if (threadIdx.x == 0) {
                SpanView &s = at().span;
                s.stops = to;
                s.saves = to + from.stop_count;
                s.blocks = (const int *)(s.saves + from.save_count);
                s.jumps = s.blocks + from.stop_count;
            }
        }
#pragma unroll 1
        for (int l = 0; l < a.net.layers; l++) {
            const NarrowLayer ly = a.net.layer[l];
            const int n = threadIdx.x % MAX_WIDTH;
            if (n >= ly.out) continue;
            if (threadIdx.x < MAX_WIDTH)
                bias(l)[n] = a.net.theta[ly.bias() + n];
            else
                bias(l)[MAX_WIDTH + n] = ly.time ? a.net.theta[ly.w + n * ly.ld() + ly.in] : T(0);
        }
    }

    // copy_clock copies the state of a place to its lane, or back.
    __device__ void copy_clock(int m, bool out) const {
        const ClockView c = clock();
        const int lane = at().lane[m];
#pragma unroll 1
        for (int i = 0; i < REAL_COUNT; i++) out ? a.clk.real(i, lane) = c.real(i, m) : c.real(i, m) = a.clk.real(i, lane);
#pragma unroll 1
        for (int i = 0; i < WIDE_COUNT; i++) out ? a.clk.wide(i, lane) = c.wide(i, m) : c.wide(i, m) = a.clk.wide(i, lane);
#pragma unroll 1
        for (int i = 0; i < WORD_COUNT; i++) out ? a.clk.word(i, lane) = c.word(i, m) : c.word(i, m) = a.clk.word(i, lane);
    }

    // leave ends the stay of a lane, whose state of the clock goes back.
    __device__ void leave(int m) const {
        const ClockView c = clock();
        c.word(WORD_SELECT, m) &= 1 << ROWS_RUNNING | 1 << ROWS_STALE;
        if (!c.selected(m, ROWS_RUNNING)) c.word(WORD_HIT, m) = -1;
        copy_clock(m, true);
        at().left[m].add(c, m, at().lane[m], span(m));
    }

    // enter gives place m to a lane, and reports whether it has something to do.
    __device__ bool enter(int m, int lane, bool late) const {
        const ClockView c = clock();
        at().lane[m] = lane;
        const SpanView &s = span(m);
        if (a.resume)
            copy_clock(m, false);
        else
            start(c, m, s);
        if (!c.selected(m, ROWS_RUNNING) || late || full(m)) {
            leave(m);
            at().lane[m] = -1;
            return false;
        }
        const bool stale = c.selected(m, ROWS_STALE);
        at().phase[m] = next(stale);
        at().enters[m] = a.resume && !stale ? 3 : 1;
        return true;
    }

    __device__ bool full(int m) const { return a.tape.counts && a.tape.counts[at().lane[m]] >= a.room; }

    // fill gives free places to lanes that wait. more is false once there are none.
    __device__ void fill(bool &more, bool late) const {
        const int m = threadIdx.x;
        at().enters[m] = 0;
        bool free = at().lane[m] < 0;
        for (;;) {
            const unsigned want = __ballot_sync(FULL, free && more);
            if (!want) return;
            const int leader = __ffs(want) - 1;
            int lane = 0;
            if (m % 32 == leader) lane = atomicAdd(&a.work->next, __popc(want));
            lane = __shfl_sync(FULL, lane, leader) + __popc(want & ((1u << m % 32) - 1));
            if (!(free && more)) continue;
            if (lane >= a.clk.lanes)
                more = false;
            else
                free = !enter(m, lane, late);
        }
    }

    // load reads the states of the lanes that entered.
    __device__ void load() const {
        for_elements(ROWS, dim(), [&](int m, int d) {
            const int e = m * dim() + d, enters = at().enters[m];
            if (!enters) return;
            const long long from = (long long)at().lane[m] * dim() + d;
            y()[e] = a.y[from];
            if (enters & 2) k(0)[e] = a.first[from];
        });
    }

    // rows is the step that a phase belongs to.
    __device__ int rows(int phase) const { return phase >= a.stages && phase < all() ? ROWS_ACCEPTED : ROWS_RUNNING; }

    // weigh sets the factors of the stages, T(h·a) of a row of the table.
    template <class Row> __device__ void weigh(Row row) const {
        const ClockView c = clock();
        for_elements(ROWS, all(), [&](int m, int j) {
            const int r = row(m);
            if (r >= 0) coef(m)[j] = (T)(c.size(m, rows(r)) * table().a(r, j));
        });
    }

    // sum is y + Σ coef·k of `terms` stages, at element e of place m.
    __device__ T sum(int m, int e, int terms) const {
        T s = y()[e];
        const T *const w = coef(m);
#pragma unroll 2
        for (int j = 0; j < terms; j++)
            if (w[j] != 0) s = fma(w[j], k(j)[e], s);
        return s;
    }

    // aim says at which instant each place evaluates, and counts it.
    __device__ void aim() const {
        const int m = threadIdx.x;
        if (!evaluates(m)) return;
        const ClockView c = clock();
        const int phase = at().phase[m];
        at().time[m] = (T)c.instant(m, rows(phase), table().c(phase));
        c.evaluated(m);
    }

    // combine sets the inputs of the stages.
    __device__ void combine() const {
        const int ld = row_stride<T>(dim());
        for_elements(ROWS, round4(dim()), [&](int m, int d) {
            T in = 0;
            if (d < dim() && evaluates(m)) {
                const int phase = at().phase[m], e = m * dim() + d;
                const T s = sum(m, e, phase == trial() ? 1 : phase);
                if (phase > 0 && phase < a.stages) end()[e] = s;
                in = input_map(a.net.cube, s);
            }
            x()[m * ld + d] = in;
        });
    }

    // evaluate sets the stages.
    __device__ void evaluate(Weights<T, 1> &weights) const {
        int layer = -1;
        forward_layers<T, R>(
            a.net, weights, x(), ROWS, [&](const NarrowLayer &) { layer++; },
            [&](const NarrowLayer &ly, int m, int n) {
                const T *const b = bias(layer);
                return ly.time ? fma(at().time[m], b[MAX_WIDTH + n], b[n]) : b[n];
            },
            [&](int m, int n, T f) {
                if (evaluates(m)) k(min(at().phase[m], all() - 1))[m * dim() + n] = f;
            });
    }

    // step says what is to be done for place m, or goes to its next stage.
    __device__ int step(int m) const {
        const ClockView c = clock();
        if (at().lane[m] < 0) return 0;
        const int phase = at().phase[m];
        if (phase == trial()) return TODO_TRIAL;
        if (phase == 0 && span(m).h0 == 0 && c.wide(WIDE_ACCEPTED, m) + c.wide(WIDE_REJECTED, m) == 0) return TODO_FIRST;
        if (phase == a.stages - 1 || phase == idle()) return TODO_DECIDE;
        if (phase == all() - 1) return TODO_SAVE;
        at().phase[m]++;
        return 0;
    }

    // in_teams calls f(m, j, active) for every place that is to do one of `what`, j the
    // number of the thread in a team of `team` threads. All threads call it.
    template <class F> __device__ void in_teams(int what, int team, F f) const {
        const int j = threadIdx.x % team;
#pragma unroll 1
        for (int m0 = 0; m0 < ROWS; m0 += THREADS / team) {
            const int m = m0 + threadIdx.x / team;
            f(m, j, m < ROWS && (at().todo[m] & what));
        }
    }
    __device__ int team() const {
        int n = 1;
        while (n < 32 && n < dim()) n *= 2;
        return n;
    }

    // first computes the norms behind the first step.
    __device__ void first() const {
        const ClockView c = clock();
        in_teams(TODO_FIRST | TODO_TRIAL, team(), [&](int m, int j, bool active) {
            FirstSum s = {};
            if (active) {
                const SpanView &own = span(m);
                const int f1 = at().todo[m] & TODO_TRIAL ? all() - 1 : 0;
                for (int d = j; d < dim(); d += team()) {
                    const int e = m * dim() + d;
                    s.term(y()[e], k(0)[e], k(f1)[e], rel(own), abs(own));
                }
            }
            s = reduce(s, team());
            if (active && j == 0) {
                c.real(REAL_D0, m) = sqrt(s.s0 / dim());
                c.real(REAL_D1, m) = sqrt(s.s1 / dim());
                c.real(REAL_D2, m) = sqrt(s.s2 / dim());
            }
        });
    }

    // finish sets the ends of the attempts that are complete.
    __device__ void finish() const {
        weigh([&](int m) { return at().todo[m] & TODO_DECIDE ? all() + 1 : -1; });
        __syncthreads();
        for_elements(ROWS, dim(), [&](int m, int d) {
            if (at().todo[m] & TODO_DECIDE) end()[m * dim() + d] = sum(m, m * dim() + d, a.stages);
        });
        __syncthreads();
    }

    // error computes the error of the attempts.
    __device__ void error() const {
        const ClockView c = clock();
        in_teams(TODO_DECIDE, team(), [&](int m, int j, bool active) {
            ErrorSum s = {};
            if (active) {
                const SpanView &own = span(m);
                const double h = c.real(REAL_H, m);
                for (int d = j; d < dim(); d += team()) {
                    const int e = m * dim() + d;
                    double est = 0, est2 = 0;
#pragma unroll 1
                    for (int i = 0; i < a.stages; i++) {
                        // A zero weight keeps an infinite k out of a sum that does not use it.
                        const double w = table().e(i), w2 = table().e2(i), f = k(i)[e];
                        est += w != 0 ? w * f : 0;
                        est2 += w2 != 0 ? w2 * f : 0;
                    }
                    s.term(h, est, est2, y()[e], end()[e], rel(own), abs(own), a.second, d);
                }
            }
            s = reduce(s, team());
            if (active && j == 0) {
                c.real(REAL_RATIO, m) = s.ratio(dim(), a.second);
                c.real(REAL_WORST, m) = s.worst;
                c.word(WORD_ROW, m) = at().lane[m];
                c.word(WORD_COL, m) = (int)s.at;
            }
        });
    }

    // decide moves the lane of place m, or not.
    __device__ int decide(int m) const {
        const ClockView c = clock();
        advance(c, m, span(m), a.control);
        if (!c.selected(m, ROWS_ACCEPTED)) return TODO_NEXT;
        if (a.extra == 0 || !(a.everywhere || c.selected(m, ROWS_SAVING))) return TODO_SAVE;
        at().phase[m] = a.stages;
        return 0;
    }

    // save writes the outputs that lie in the accepted steps.
    __device__ void save() const {
        const ClockView c = clock();
        const bool own = at().span.own;
        in_teams(TODO_SAVE, team(), [&](int m, int j, bool active) {
            int out = 0, last = 0;
            if (active && a.table) {
                out = c.word(WORD_SAVE_FROM, m);
                last = (int)min((long long)c.word(WORD_SAVE, m), a.outputs - (own ? span(m).row : 0));
            }
            for (; __any_sync(FULL, out < last); out++) {
                bool inside = false;
                if (out < last) {
                    const double t = span(m).saves[out], h = c.real(REAL_TOOK_H, m);
                    inside = t != c.real(REAL_END, m);
                    const double u = (t - c.real(REAL_TOOK_T, m)) / h;
                    for (int i = j; inside && i < all(); i += team()) {
                        const double *p = table().dense(i, a.powers);
                        double w = 0;
                        for (int n = a.powers - 1; n >= 0; n--) w = (w + p[n]) * u;
                        coef(m)[i] = (T)(h * w);
                    }
                }
                __syncwarp();
                if (out < last) {
                    T *const to = a.table + (own ? span(m).row + out : (long long)out * a.clk.lanes + at().lane[m]) * dim();
                    for (int d = j; d < dim(); d += team()) {
                        const int e = m * dim() + d;
                        to[d] = inside ? sum(m, e, all()) : end()[e];
                    }
                }
                __syncwarp();
            }
        });
    }

    // push appends the accepted steps to the tape, but for what Tape notes.
    __device__ void push() const {
        const long long total = (long long)a.clk.lanes * dim();
        for_elements(ROWS, dim(), [&](int m, int d) {
            if (!(at().todo[m] & TODO_SAVE)) return;
            const int lane = at().lane[m];
            T *const to = a.tape.template vec<T>(a.tape.counts[lane], 0, total) + (long long)lane * dim() + d;
            for (int i = 0; i < a.tape.keep; i++) to[i * total] = sheet()[a.keep[i] * ROWS * dim() + m * dim() + d];
        });
    }

    // commit moves the states.
    __device__ void commit() const {
        const ClockView c = clock();
        const int handover = a.control.handover;
        for_elements(ROWS, dim(), [&](int m, int d) {
            if (!(at().todo[m] & TODO_SAVE)) return;
            const int e = m * dim() + d;
            y()[e] = end()[e];
            if (handover == HAND_LAST || (handover == HAND_SAVING && c.selected(m, ROWS_SAVING))) k(0)[e] = k(a.hand)[e];
        });
    }

    // go begins the next attempt of place m, or says that its lane leaves.
    __device__ int go(int m, bool late) const {
        const ClockView c = clock();
        if (!c.selected(m, ROWS_RUNNING) || late || full(m)) return TODO_LEAVE;
        at().phase[m] = next(c.selected(m, ROWS_STALE));
        return 0;
    }

    // store writes the states of the lanes that leave.
    __device__ void store() const {
        const ClockView c = clock();
        for_elements(ROWS, dim(), [&](int m, int d) {
            if (at().todo[m] != TODO_LEAVE) return;
            const long long to = (long long)at().lane[m] * dim() + d;
            a.y[to] = y()[m * dim() + d];
            if (c.selected(m, ROWS_RUNNING) && !c.selected(m, ROWS_STALE)) a.first[to] = k(0)[m * dim() + d];
        });
    }

    // report adds what this block's lanes did, and in the last block everything.
    __device__ void report(long long places) const {
        __shared__ bool last;
        FusedProgress mine = {};
        mine.p.lane = -1;
        if (threadIdx.x < ROWS) mine.p = at().left[threadIdx.x];
        if (threadIdx.x == 0) mine.places = places;
        mine = reduce(mine, BLOCK);
        if (threadIdx.x == 0) {
            a.work->partial[blockIdx.x] = mine;
            __threadfence();
            last = atomicAdd(&a.work->done, 1) == (int)gridDim.x - 1;
        }
        __syncthreads();
        if (!last) return;
        __threadfence();
        FusedProgress sum = {};
        sum.p.lane = -1;
        for (int i = threadIdx.x; i < (int)gridDim.x; i += BLOCK) sum.add(a.work->partial[i]);
        sum = reduce(sum, BLOCK);
        if (threadIdx.x) return;
        const SpanView &s = *a.clk.span;
        if (sum.p.lane < 0) sum.p.t = s.stops[s.stop_count - 1];
        sum.p.tape = a.tape.counts ? *(volatile int *)a.tape.longest : 0;
        a.work->total = sum;
        a.work->next = a.work->done = 0;
    }

    __device__ void run() const {
        const int m = threadIdx.x;
        const bool place = m < ROWS;
        long long evaluations = 0;
        bool more = true;
        Weights<T, 1> weights(a.net, shared(), a.net.layers);
        weights.load();
        set_up();
        weights.loaded();
        __syncthreads();
#pragma unroll 1
        for (;; evaluations++) {
            if (place) fill(more, overdue(evaluations));
            if (!__syncthreads_or(place && at().lane[m] >= 0)) break;
            weights.begin();
            if (__syncthreads_or(place && at().enters[m])) load();
            weigh([&](int i) { return evaluates(i) ? at().phase[i] : -1; });
            if (place) aim();
            __syncthreads();
            combine();
            __syncthreads();
            evaluate(weights);

            int todo = place ? step(m) : 0;
            if (place) at().todo[m] = todo;
            if (__syncthreads_or(todo & (TODO_FIRST | TODO_TRIAL))) {
                first();
                __syncthreads();
                if (todo & (TODO_FIRST | TODO_TRIAL)) {
                    first_step(clock(), m, span(m), a.order, todo & TODO_TRIAL);
                    at().phase[m] = todo & TODO_TRIAL ? next(false) : trial();
                }
            }
            if (__syncthreads_or(todo & TODO_DECIDE)) {
                if (!a.fsal) finish();
                error();
                __syncthreads();
                if (todo & TODO_DECIDE) at().todo[m] = todo = decide(m);
            }
            if (__syncthreads_or(todo & TODO_SAVE)) {
                save();
                if (a.tape.counts) push();
                __syncthreads();
                commit();
                __syncthreads();
                if (todo & TODO_SAVE && a.tape.counts) a.tape.note(at().lane[m], clock(), m);
            }
            if (todo & (TODO_SAVE | TODO_NEXT)) at().todo[m] = todo = go(m, overdue(evaluations + 1));
            if (__syncthreads_or(todo & TODO_LEAVE)) {
                store();
                __syncthreads();
                if (todo & TODO_LEAVE) {
                    leave(m);
                    at().lane[m] = -1;
                }
            }
        }
        report(evaluations * ROWS);
    }
};

#define FUSED(T, R, NAME)                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) NAME(FusedArgs<T> a) {             \
        Fused<T, R>{a}.run();                                                                          \
    }
FUSED(float, 1, fused_solve_tile32_f32)
FUSED(float, 2, fused_solve_tile64_f32)
FUSED(double, 1, fused_solve_tile32_f64)
FUSED(double, 2, fused_solve_tile64_f64)
