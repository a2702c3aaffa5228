// Copies beside what a device computes, passes that are recorded once and replayed, and TF32. By libtorch's interfaces that
// are the same for all accelerators, so that nothing of CUDA is needed where this is compiled.
//
// Functions return as those of `shim.cpp` do.

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Functions.h>
#include <ATen/core/GraphImplInterface.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>

#include "caught.h"

namespace {

using at::Tensor;

// The stream of a device that copies.
c10::Stream copying(c10::Device device) {
  static std::map<c10::DeviceIndex, c10::Stream> streams;
  const auto found = streams.find(device.index());
  if (found != streams.end()) {
    return found->second;
  }
  const auto stream = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
  streams.emplace(device.index(), stream);
  return stream;
}

struct Graph {
  std::unique_ptr<at::GraphImplInterface> graph;
  c10::Device device;
  // That of what is queued, while another one records.
  std::optional<c10::Stream> before;
};

bool has_streams(c10::Device device) {
  return device.type() != c10::kCPU;
}

void record_on_the_former_stream(Graph& graph) {
  if (graph.before) {
    at::accelerator::setCurrentStream(*graph.before);
    graph.before.reset();
  }
}

}  // namespace

extern "C" {

// A tensor on an accelerator. The values are in pinned memory when this returns; from there they are copied beside what the
// device computes, and what is queued after this waits for them.
char* simmim_upload(const void* data, size_t bytes, const int64_t* shape, size_t axes, int type, const Tensor* on,
                    Tensor** result) {
  return caught([&] {
    const auto device = on->device();
    const auto options = at::TensorOptions().dtype(static_cast<at::ScalarType>(type)).pinned_memory(true);
    const Tensor pinned = at::empty(at::IntArrayRef(shape, axes), options);
    if (pinned.nbytes() != bytes) {
      throw std::invalid_argument("values do not fill their shape");
    }
    if (bytes > 0) {
      std::memcpy(pinned.mutable_data_ptr(), data, bytes);
    }
    const auto computing = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
    const auto copies = copying(device);
    Tensor copied;
    {
      c10::StreamGuard guard(copies);
      copied = pinned.to(device, /*non_blocking=*/true);
    }
    c10::Event done(device.type());
    done.record(copies);
    done.block(computing);
    // its memory is used again only when the computing stream, too, is done with it
    copied.record_stream(computing);
    *result = new Tensor(copied);
  });
}

bool simmim_has_graphs(const Tensor* on) {
  return at::has_graph_impl(on->device().type());
}

// Begins to record what is queued on the device of `on`.
char* simmim_graph_begin(const Tensor* on, Graph** result) {
  return caught([&] {
    const auto device = on->device();
    auto graph = std::make_unique<Graph>(Graph{at::create_graph_impl(device.type()), device, std::nullopt});
    if (graph->graph == nullptr) {
      throw std::runtime_error("this device has no graphs");
    }
    if (has_streams(device)) {
      at::accelerator::synchronizeDevice(device.index());
      // a graph has memory of its own, and what eager passes had is not needed beside it
      at::accelerator::emptyCache();
      graph->before = at::accelerator::getCurrentStream(device.index());
      at::accelerator::setCurrentStream(
          c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device));
    }
    try {
      graph->graph->capture_begin();
    } catch (...) {
      record_on_the_former_stream(*graph);
      throw;
    }
    *result = graph.release();
  });
}

char* simmim_graph_end(Graph* graph) {
  return caught([&] {
    try {
      graph->graph->capture_end();
    } catch (...) {
      record_on_the_former_stream(*graph);
      throw;
    }
    record_on_the_former_stream(*graph);
  });
}

char* simmim_graph_replay(Graph* graph) {
  return caught([&] { graph->graph->replay(); });
}

void simmim_graph_drop(Graph* graph) {
  delete graph;
}

// Whether products and convolutions of f32 on NVIDIA's GPUs may round their operands to TF32.
char* simmim_allow_tf32(bool is_allowed) {
  return caught([&] {
    const auto precision = is_allowed ? at::Float32Precision::TF32 : at::Float32Precision::IEEE;
    for (const auto operation : {at::Float32Op::MATMUL, at::Float32Op::CONV}) {
      at::globalContext().setFloat32Precision(at::Float32Backend::CUDA, operation, precision);
    }
  });
}

bool simmim_allows_tf32() {
  const auto precision = [](at::Float32Op operation) {
    return at::globalContext().float32Precision(at::Float32Backend::CUDA, operation);
  };
  return precision(at::Float32Op::MATMUL) == at::Float32Precision::TF32 &&
         precision(at::Float32Op::CONV) == at::Float32Precision::TF32;
}

}  // extern "C"
