// What the binding `tch` lacks: functions that pick rows with a backward pass that picks rows too, segments that are
// recomputed in the backward pass, a backward pass from a given gradient, the optimizer that libtorch fuses, what
// operators ran, and what is known of an accelerator.
//
// Every function returns null, or a message that `simmim_free` takes: no exception crosses into Rust. A tensor is a pointer
// to an `at::Tensor`, as in `torch-sys`; one that is returned belongs to the caller.

#include <ATen/DeviceAccelerator.h>
#include <ATen/Functions.h>
#include <ATen/Version.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>
#include <torch/headeronly/version.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>
#ifndef _WIN32
#include <dlfcn.h>
#endif

#include "caught.h"

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::optional<Tensor> optional(const Tensor* tensor) {
  return tensor == nullptr ? std::nullopt : std::optional<Tensor>(*tensor);
}

// Rows of `[R, D]`; those that `padding` marks are zero.
Tensor picked(const Tensor& source, const Tensor& index, const Tensor& padding) {
  if (source.size(0) == 0) {
    return source.new_zeros({index.size(0), source.size(1)}); // there is no row to take in place of a missing one
  }
  Tensor rows = source.contiguous().index_select(0, index);
  if (padding.defined()) {
    rows.masked_fill_(padding, 0);
  }
  return rows;
}

// Each row is picked at most once, so the gradient picks rows by the inverse, where autograd's own would add them one by one.
struct PickRows : torch::autograd::Function<PickRows> {
  static Tensor forward(AutogradContext* context, const Tensor& source, const Tensor& index,
                        const std::optional<Tensor>& padding, const Tensor& inverse,
                        const std::optional<Tensor>& inverse_padding) {
    context->save_for_backward({inverse, inverse_padding.value_or(Tensor())});
    return picked(source, index, padding.value_or(Tensor()));
  }

  static variable_list backward(AutogradContext* context, variable_list d_rows) {
    const auto saved = context->get_saved_variables();
    return {picked(d_rows[0], saved[0], saved[1]), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

// Runs a segment again: takes the gradient of its output, and returns that of its input or a message.
using Again = char* (*)(void* segment, const Tensor* d_output, Tensor** d_input);

struct Segment : torch::CustomClassHolder {
  void* segment;
  Again again;
  void (*drop)(void*);

  Segment(void* segment, Again again, void (*drop)(void*)) : segment(segment), again(again), drop(drop) {}
  ~Segment() override { drop(segment); }
};

struct Recompute : torch::autograd::Function<Recompute> {
  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor* output,
                        const c10::intrusive_ptr<Segment>& segment) {
    (void)input;
    context->saved_data["segment"] = at::IValue::make_capsule(segment);
    return *output;
  }

  static variable_list backward(AutogradContext* context, variable_list d_output) {
    auto holder = context->saved_data["segment"].toCapsule();
    auto* segment = static_cast<Segment*>(holder.get());
    Tensor* d_input = nullptr;
    if (char* message = segment->again(segment->segment, &d_output[0], &d_input)) {
      std::string text(message);
      std::free(message);
      throw std::runtime_error(text);
    }
    variable_list gradients = {*d_input, Tensor(), Tensor()};
    delete d_input;
    return gradients;
  }
};

// How often an operator ran while they are counted, and how long without those that it called.
struct Use {
  int64_t count = 0;
  int64_t nanoseconds = 0;
};

std::mutex counting;
std::map<std::string, Use> uses;

using Clock = std::chrono::steady_clock;

// The operators that run in this thread, each inside the one before it: how long those that they called took.
thread_local std::vector<Clock::duration> inner;

struct Started : at::ObserverContext {
  Clock::time_point at = Clock::now();
};

std::unique_ptr<at::ObserverContext> operator_starts(const at::RecordFunction&) {
  inner.push_back({});
  return std::make_unique<Started>();
}

void operator_ends(const at::RecordFunction& function, at::ObserverContext* context) {
  const auto took = Clock::now() - static_cast<Started*>(context)->at;
  const auto within = inner.empty() ? Clock::duration() : inner.back();
  if (!inner.empty()) {
    inner.pop_back();
  }
  if (!inner.empty()) {
    inner.back() += took;
  }
  std::lock_guard<std::mutex> lock(counting);
  Use& use = uses[function.name()];
  use.count++;
  use.nanoseconds += std::chrono::duration_cast<std::chrono::nanoseconds>(took - within).count();
}

at::DeviceIndex index_of(int index) {
  return static_cast<at::DeviceIndex>(index);
}

}  // namespace

extern "C" {

void simmim_free(char* message) {
  std::free(message);
}

// A copy that `simmim_free` takes.
char* simmim_copy(const char* text) {
  return strdup(text);
}

char* simmim_pick_rows(const Tensor* source, const Tensor* index, const Tensor* padding, const Tensor* inverse,
                       const Tensor* inverse_padding, Tensor** rows) {
  return caught([&] {
    *rows = new Tensor(
        PickRows::apply(*source, *index, optional(padding), *inverse, optional(inverse_padding)));
  });
}

// Takes over `segment`, in any case.
char* simmim_recompute(const Tensor* input, const Tensor* output, void* segment, Again again, void (*drop)(void*),
                       Tensor** result) {
  return caught([&] {
    auto held = c10::make_intrusive<Segment>(segment, again, drop);
    *result = new Tensor(Recompute::apply(*input, output, held));
  });
}

// Adds the gradients of `output` to those of the leaves; without `d_output` it is a scalar.
char* simmim_backward(const Tensor* output, const Tensor* d_output, bool keeps_graph) {
  return caught([&] {
    variable_list gradients;
    if (d_output != nullptr) {
      gradients.push_back(*d_output);
    }
    torch::autograd::backward({*output}, gradients, keeps_graph);
  });
}

char* simmim_set_gradient(Tensor* leaf, const Tensor* gradient) {
  return caught([&] { leaf->mutable_grad() = optional(gradient).value_or(Tensor()); });
}

// What keeps a tensor does not keep what it was computed from.
char* simmim_forget_graph(Tensor* tensor) {
  return caught([&] {
    if (!tensor->is_view()) {
      tensor->detach_();
    }
  });
}

char* simmim_norm(const Tensor* const* tensors, size_t count, Tensor** norm) {
  return caught([&] {
    at::NoGradGuard no_grad;
    std::vector<Tensor> list;
    for (size_t i = 0; i < count; i++) {
      list.push_back(*tensors[i]);
    }
    *norm = new Tensor(at::stack(at::_foreach_norm(list, 2)).norm());
  });
}

// One step of AdamW of several parameters that have the same learning rate and decay. Gradients are divided by `divisor`
// first; nothing changes where `found_inf` is one. Pointers are the parameters', then as many gradients, then moments.
char* simmim_fused_adamw(const Tensor* const* tensors, size_t count, const Tensor* step, double lr, double beta1,
                         double beta2, double weight_decay, double eps, const Tensor* divisor, const Tensor* found_inf) {
  return caught([&] {
    at::NoGradGuard no_grad;
    std::vector<Tensor> lists[4];
    for (size_t i = 0; i < 4 * count; i++) {
      lists[i / count].push_back(*tensors[i]);
    }
    std::vector<Tensor> steps(count, *step);
    at::_fused_adamw_(lists[0], lists[1], lists[2], lists[3], {}, steps, lr, beta1, beta2, weight_decay, eps,
                      /*amsgrad=*/false, /*maximize=*/false, *divisor, *found_inf);
  });
}

char* simmim_start_counting(uint64_t* handle) {
  return caught([&] {
    {
      std::lock_guard<std::mutex> lock(counting);
      uses.clear();
    }
    auto callback = at::RecordFunctionCallback(operator_starts, operator_ends);
    *handle = at::addGlobalCallback(callback.scopes({at::RecordScope::FUNCTION}));
  });
}

// Lines of a name, how often and how many nanoseconds.
char* simmim_stop_counting(uint64_t handle, char** lines) {
  return caught([&] {
    at::removeCallback(handle);
    std::lock_guard<std::mutex> lock(counting);
    std::string text;
    for (const auto& [name, use] : uses) {
      text += name + " " + std::to_string(use.count) + " " + std::to_string(use.nanoseconds) + "\n";
    }
    *lines = strdup(text.c_str());
  });
}

// Version of the headers that this was compiled with, and of the library that was loaded.
const char* simmim_version_built() {
  return TORCH_VERSION;
}

char* simmim_configuration(char** text) {
  return caught([&] { *text = strdup(at::show_config().c_str()); });
}

// Loads the library for GPUs beside libtorch, which registers itself. A process that computes on the CPU does not pay for it.
bool simmim_load(const char* library) {
#ifdef _WIN32
  (void)library;
  return true;
#else
  return dlopen(library, RTLD_NOW | RTLD_GLOBAL) != nullptr;
#endif
}

char* simmim_synchronize(int index) {
  return caught([&] { at::accelerator::synchronizeDevice(index_of(index)); });
}

// Bytes of the accelerator, and the most that were in use at a time.
char* simmim_memory(int index, uint64_t* total, uint64_t* peak) {
  return caught([&] {
    *total = at::accelerator::getMemoryInfo(index_of(index)).second;
    const auto stats = at::accelerator::getDeviceStats(index_of(index));
    *peak = static_cast<uint64_t>(stats.allocated_bytes[0].peak);
  });
}

// The name that the driver gives to a GPU, by the one function whose signature CUDA and HIP share.
bool simmim_name(int index, char* name, int length) {
#ifdef _WIN32
  (void)index, (void)name, (void)length;
  return false;
#else
  using Get = int (*)(int*, int);
  using Name = int (*)(char*, int, int);
  const char* drivers[][3] = {{"libcuda.so.1", "cuDeviceGet", "cuDeviceGetName"},
                              {"libamdhip64.so", "hipDeviceGet", "hipDeviceGetName"}};
  for (const auto& [library, get_symbol, name_symbol] : drivers) {
    void* driver = dlopen(library, RTLD_LAZY);
    if (driver == nullptr) {
      continue;
    }
    auto get = reinterpret_cast<Get>(dlsym(driver, get_symbol));
    auto name_of = reinterpret_cast<Name>(dlsym(driver, name_symbol));
    int device = 0;
    if (get != nullptr && name_of != nullptr && get(&device, index) == 0 && name_of(name, length, device) == 0) {
      return true;
    }
  }
  return false;
#endif
}

}  // extern "C"
