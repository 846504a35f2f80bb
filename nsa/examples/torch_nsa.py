"""Native Sparse Attention in PyTorch: an autograd function on the library's forward and backward, and a few steps of
training through it. Tensors are used where they lie, on a CPU or a GPU, on PyTorch's current stream."""
import ctypes as C
import torch
from nsa import Config, Gradients, Inputs, Outputs, P, P3, check, lib

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}

class Context:
    """One configuration: heads, widths, type and device of the tensors; `options` are fields of NSAConfig."""
    def __init__(self, head_dim, num_heads, dtype, device, **options):
        config = lib.nsa_create_default_config(head_dim, num_heads)
        config.dtype, config.device = DTYPES[dtype], -1 if device.type == "cpu" else device.index or 0
        for name, value in options.items(): setattr(config, name, value)
        self.handle, self.groups, self.value_dim = C.c_void_p(), config.num_groups, config.value_dim or head_dim
        self.sums = torch.float64 if dtype == torch.float64 else torch.float32  # the type of gradients
        check(lib.nsa_init(C.byref(self.handle), C.byref(config)))
    def __del__(self): lib.nsa_free(C.byref(self.handle))

def stream(x): return torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else None
def pointers(tensors): return P3(*(x.data_ptr() for x in tensors))

class NSA(torch.autograd.Function):
    """q [S,H,K]; k and v of the compressed, selected and window branch [S,G,K], [S,G,V]; gates [S,H,3] -> [S,H,V].
    doc_start: [S] int32 on the CPU, or None."""
    @staticmethod
    def forward(ctx, nsa, doc_start, q, k0, k1, k2, v0, v1, v2, gates):
        tensors = [x.contiguous() for x in (q, k0, k1, k2, v0, v1, v2, gates)]
        q = tensors[0]
        out = q.new_empty(q.shape[0], q.shape[1], nsa.value_dim)
        saved = torch.empty(lib.nsa_saved_size(C.byref(nsa.handle), len(q)), dtype=torch.uint8, device=q.device)
        ctx.nsa, ctx.doc_start = nsa, doc_start
        ctx.save_for_backward(saved, *tensors)
        check(lib.nsa_forward(C.byref(nsa.handle), C.byref(NSA.inputs(doc_start, *tensors)),
                              C.byref(Outputs(out.data_ptr(), saved.data_ptr(), None)), stream(q)))
        return out

    @staticmethod
    def backward(ctx, d_out):
        saved, *tensors = ctx.saved_tensors
        d_out, nsa = d_out.contiguous(), ctx.nsa
        d = [torch.empty(x.shape, dtype=nsa.sums, device=x.device) for x in tensors]
        work = torch.empty(lib.nsa_backward_workspace_size(C.byref(nsa.handle), len(d_out)), dtype=torch.uint8,
                           device=d_out.device)
        gradients = Gradients(d[0].data_ptr(), pointers(d[1:4]), pointers(d[4:7]), d[7].data_ptr())
        check(lib.nsa_backward(C.byref(nsa.handle), C.byref(NSA.inputs(ctx.doc_start, *tensors)), saved.data_ptr(),
                               d_out.data_ptr(), C.byref(gradients), work.data_ptr(), stream(d_out)))
        return (None, None, *(g.to(x.dtype) for g, x in zip(d, tensors)))

    @staticmethod
    def inputs(doc_start, q, k0, k1, k2, v0, v1, v2, gates):
        starts = None if doc_start is None else doc_start.data_ptr()
        return Inputs(len(q), starts, q.data_ptr(), pointers((k0, k1, k2)), pointers((v0, v1, v2)), gates.data_ptr())

class Layer(torch.nn.Module):
    """Attention of x [S,D] with projections, keys and values for each branch, gates."""
    def __init__(self, nsa, width, heads, head_dim):
        super().__init__()
        self.nsa, self.sizes = nsa, [heads * head_dim, 6 * nsa.groups * head_dim, 3 * heads]
        self.heads, self.head_dim = heads, head_dim
        self.project, self.output = torch.nn.Linear(width, sum(self.sizes)), torch.nn.Linear(heads * head_dim, width)
    def forward(self, x):
        q, kv, gates = self.project(x).split(self.sizes, 1)
        rows = (part.reshape(len(x), self.nsa.groups, self.head_dim) for part in kv.chunk(6, 1))
        out = NSA.apply(self.nsa, None, q.reshape(len(x), self.heads, self.head_dim), *rows,
                        gates.reshape(len(x), self.heads, 3).sigmoid())
        return self.output(out.flatten(1))

if __name__ == "__main__":
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(1)
    S, D, H, K = 512, 64, 16, 32
    nsa = Context(K, H, torch.float32, device, phi=2, max_length=S)  # compression by the mean
    teacher, student = (Layer(nsa, D, H, K).to(device) for _ in range(2))
    optimizer = torch.optim.Adam(student.parameters(), 1e-2)
    losses = []
    for step in range(101):
        x = 3 * torch.randn(S, D, device=device)
        with torch.no_grad(): target = teacher(x)
        loss = (student(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 20 == 0: print(f"step {step}: loss {losses[-1]:.5f}")
    assert sum(losses[-20:]) / 20 < 0.6 * losses[0]
