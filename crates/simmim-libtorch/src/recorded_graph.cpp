// Graphs of the CPU, for tests: libtorch has none there. Operators are recorded with what they are given, and replayed by
// calling them again; each result is copied to where the recorded one lies, so that whoever holds that finds the new values, as
// with the graphs of a GPU. As there, nothing is computed for good while it is recorded: what is changed in place is put back.

#include <ATen/Functions.h>
#include <ATen/core/GraphImplInterface.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/record_function.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "caught.h"

namespace {

using at::Tensor;

// Tensors of a value, those in lists too.
std::vector<Tensor> tensors_of(const c10::IValue& value) {
  if (value.isTensor()) {
    return {value.toTensor()};
  }
  if (value.isTensorList()) {
    return value.toTensorVector();
  }
  return {};
}

struct Call {
  c10::OperatorHandle operation;
  torch::jit::Stack inputs;
  std::vector<Tensor> outputs;
};

// What is recorded in this thread, which is where the CPU computes gradients too.
thread_local std::vector<Call>* calls = nullptr;
thread_local std::vector<std::pair<Tensor, Tensor>> changed;
// How many operators run inside the one that is recorded.
thread_local int depth = 0;

struct Recorded : at::ObserverContext {
  std::optional<Call> call;
};

std::unique_ptr<at::ObserverContext> starts(const at::RecordFunction& function) {
  auto context = std::make_unique<Recorded>();
  const auto name = function.operator_name();
  if (calls == nullptr || !name) {
    return context;
  }
  auto operation = c10::Dispatcher::singleton().findSchema(*name);
  // one that is made of others is not recorded, but those are
  const bool is_made_of_others =
      operation && depth == 0 && operation->hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd);
  if (!operation || is_made_of_others) {
    return context;
  }
  if (depth++ > 0) {
    context->call = Call{*operation, {}, {}};
    return context;
  }
  Call call{*operation, {}, {}};
  for (const auto& input : function.inputs()) {
    call.inputs.push_back(input);
  }
  const auto& arguments = operation->schema().arguments();
  at::DisableRecordFunctionGuard unseen;
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < arguments.size() && i < call.inputs.size(); i++) {
    if (arguments[i].alias_info() != nullptr && arguments[i].alias_info()->isWrite()) {
      for (const auto& tensor : tensors_of(call.inputs[i])) {
        changed.emplace_back(tensor, tensor.detach().clone());
      }
    }
  }
  context->call = std::move(call);
  return context;
}

void ends(const at::RecordFunction& function, at::ObserverContext* context) {
  auto& call = static_cast<Recorded*>(context)->call;
  if (!call || --depth > 0 || calls == nullptr) {
    return;
  }
  at::DisableRecordFunctionGuard unseen;
  for (const auto& output : const_cast<at::RecordFunction&>(function).outputs()) {
    for (const auto& tensor : tensors_of(output)) {
      // the place, whatever becomes of the tensor
      call->outputs.push_back(tensor.defined() ? tensor.detach() : tensor);
    }
  }
  calls->push_back(std::move(*call));
}

struct RecordedGraph : at::GraphImplInterface {
  std::vector<Call> recorded;
  at::CallbackHandle handle = 0;

  explicit RecordedGraph(const at::GraphImplArgs&) {}

  void capture_begin(at::MempoolId_t, at::GraphCaptureMode) override {
    calls = &recorded;
    depth = 0;
    auto callback = at::RecordFunctionCallback(starts, ends).needsInputs(true).needsOutputs(true);
    handle = at::addThreadLocalCallback(callback.scopes({at::RecordScope::FUNCTION}));
  }

  void capture_end() override {
    at::removeCallback(handle);
    calls = nullptr;
    at::NoGradGuard no_grad;
    for (auto pair = changed.rbegin(); pair != changed.rend(); ++pair) {
      pair->first.detach().copy_(pair->second);
    }
    changed.clear();
  }

  void instantiate() override {}

  void replay() override {
    at::NoGradGuard no_grad;
    for (const auto& call : recorded) {
      torch::jit::Stack stack = call.inputs;
      call.operation.callBoxed(stack);
      std::vector<Tensor> results;
      for (const auto& output : stack) {
        for (const auto& tensor : tensors_of(output)) {
          results.push_back(tensor);
        }
      }
      if (results.size() != call.outputs.size()) {
        throw std::runtime_error("an operator has other results than when it was recorded");
      }
      for (size_t i = 0; i < results.size(); i++) {
        const auto& at = call.outputs[i];
        if (at.defined() && at.numel() > 0 && at.data_ptr() != results[i].data_ptr()) {
          at.detach().copy_(results[i]);
        }
      }
    }
  }

  void reset() override {
    recorded.clear();
  }

  at::MempoolId_t pool() const override {
    return {0, 0};
  }

  void enable_debug_mode() override {}

  void debug_dump(const std::string&) override {}
};

}  // namespace

extern "C" {

char* simmim_record_graphs_on_the_cpu() {
  return caught([&] {
    if (!at::has_graph_impl(c10::kCPU)) {
      at::GraphImplRegistry()->Register(
          c10::DeviceTypeName(c10::kCPU, /*lower_case=*/false),
          [](const at::GraphImplArgs& arguments) -> std::unique_ptr<at::GraphImplInterface> {
            return std::make_unique<RecordedGraph>(arguments);
          });
    }
  });
}

}  // extern "C"
