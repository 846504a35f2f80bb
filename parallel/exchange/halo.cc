// The halo: the tokens before each segment, borrowed from whoever holds them. Own rows and borrowed pages,
// ascending, lie where HaloPlace says; by default the own rows first. Who lends what to whom is arithmetic that every
// rank does alike: nothing is negotiated. Both directions are one batch of contiguous runs, so nothing is packed.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "parallel/exchange/exchange.h"
#include "parallel/exchange/frame.h"

namespace longspan {
namespace {

// Consecutive rows that one rank lends to another.
struct Loan {
  int owner;
  int borrower;
  int64_t owner_row;     // of the owner's own rows, the first
  int64_t borrower_row;  // of the borrower's borrowed rows, the first
  int64_t rows;
};

// The pages that `rank` borrows, each with its first needed position (the rest of the page is needed, too).
std::map<int64_t, int64_t> BorrowedPages(const Layout& layout, int rank, int64_t halo) {
  const int64_t unit = layout.unit();
  std::map<int64_t, int64_t> first_needed;
  for (const Segment& segment : layout.segments(rank)) {
    const int64_t begin = std::max<int64_t>(0, segment.begin - halo);
    for (int64_t page = begin / unit; page * unit < segment.begin; ++page) {
      if (layout.Find(page * unit).rank == rank) continue;
      const int64_t first = std::max(begin, page * unit);
      const auto [known, added] = first_needed.emplace(page, first);
      if (!added) known->second = std::min(known->second, first);
    }
  }
  return first_needed;
}

// What `rank` borrows, in the order of its buffer.
std::vector<Loan> LoansTo(const Layout& layout, int rank, int64_t halo) {
  const int64_t unit = layout.unit();
  std::vector<Loan> loans;
  int64_t page_row = 0;
  for (const auto& [page, first] : BorrowedPages(layout, rank, halo)) {
    const Layout::Place place = layout.Find(first);
    const Loan loan = {place.rank, rank, place.row, page_row + first % unit, unit - first % unit};
    page_row += unit;
    if (!loans.empty()) {
      Loan& last = loans.back();
      if (last.owner == loan.owner && last.owner_row + last.rows == loan.owner_row &&
          last.borrower_row + last.rows == loan.borrower_row) {
        last.rows += loan.rows;
        continue;
      }
    }
    loans.push_back(loan);
  }
  return loans;
}

int64_t Rows(const std::vector<Loan>& loans) {
  int64_t rows = 0;
  for (const Loan& loan : loans) rows += loan.rows;
  return rows;
}

std::vector<int32_t> HaloTable(const Layout& layout, int rank, int64_t halo, const HaloPlace& place) {
  std::vector<int32_t> table = OwnPages(layout, rank);
  for (int32_t& slot : table) {
    if (slot >= 0) slot += static_cast<int32_t>(place.own_row / layout.unit());
  }
  int32_t slot = static_cast<int32_t>(place.borrowed_row / layout.unit());
  for (const auto& [page, first] : BorrowedPages(layout, rank, halo)) table[page] = slot++;
  return table;
}

class HaloExchange final : public Exchange {
 public:
  HaloExchange(const Layout& layout, Communicator& cp, DenseOps& dense, int64_t halo, const HaloPlace& place)
      : cp_(cp),
        dense_(dense),
        place_(place),
        borrowed_(LoansTo(layout, cp.rank(), halo)),
        frame_("halo exchange", place.borrowed_row + layout.unit() * std::ssize(BorrowedPages(layout, cp.rank(), halo)),
               layout.unit(), HaloTable(layout, cp.rank(), halo, place)) {
    for (int rank = 0; rank < layout.ranks(); ++rank) {
      for (const Loan& loan : LoansTo(layout, rank, halo)) {
        if (loan.owner == cp.rank()) lent_.push_back(loan);
      }
    }
  }

  int64_t rows() const override { return frame_.rows(); }
  int64_t own_row() const override { return place_.own_row; }
  const Pages& pages() const override { return frame_.pages(); }
  int64_t borrowed_bytes() const override { return borrowed_bytes_; }

  void Reserve(Arena& arena, const std::string& name, DType dtype, DType gradient_dtype,
               const std::vector<Shape>& shapes) override {
    frame_.Reserve(arena, name, dtype, gradient_dtype, shapes);
    if (lent_.empty()) return;
    returned_.resize(shapes.size());
    for (size_t i = 0; i < shapes.size(); ++i) {
      arena.Reserve(&returned_[i], MemoryUse::kExchange, name + ".returned", gradient_dtype,
                    {Rows(lent_), shapes[i][0], shapes[i][1]});
    }
  }
  void Start(Device& device, Stream& stream) override { frame_.Upload(device, stream); }

  void Forward(Stream& stream, const std::vector<Tensor>& buffers) override {
    frame_.CheckBuffers(buffers);
    borrowed_bytes_ = Rows(borrowed_) * frame_.row_bytes();
    std::vector<Transfer> batch;
    for (const Tensor& x : buffers) {
      for (const Loan& loan : lent_) {
        batch.push_back({Transfer::Kind::kSend, loan.borrower, Lent(x, loan)});
      }
      for (const Loan& loan : borrowed_) {
        batch.push_back({Transfer::Kind::kReceive, loan.owner, Borrowed(x, loan)});
      }
    }
    if (!batch.empty()) cp_.SendReceive(stream, batch);
  }

  // Every loan comes back as a gradient; the owner adds them in the order of borrowers.
  void Backward(Stream& stream, const std::vector<Tensor>& gradients) override {
    frame_.CheckGradients(gradients);
    std::vector<Transfer> batch;
    for (size_t i = 0; i < gradients.size(); ++i) {
      for (const Loan& loan : borrowed_) {
        batch.push_back({Transfer::Kind::kSend, loan.owner, Borrowed(gradients[i], loan)});
      }
      int64_t row = 0;
      for (const Loan& loan : lent_) {
        batch.push_back({Transfer::Kind::kReceive, loan.borrower, returned_[i].Rows(row, loan.rows)});
        row += loan.rows;
      }
    }
    if (!batch.empty()) cp_.SendReceive(stream, batch);
    for (size_t i = 0; i < gradients.size(); ++i) {
      int64_t row = 0;
      for (const Loan& loan : lent_) {
        dense_.Add(stream, returned_[i].Rows(row, loan.rows), Lent(gradients[i], loan));
        row += loan.rows;
      }
    }
  }

 private:
  Tensor Lent(const Tensor& x, const Loan& loan) const { return x.Rows(place_.own_row + loan.owner_row, loan.rows); }
  Tensor Borrowed(const Tensor& x, const Loan& loan) const {
    return x.Rows(place_.borrowed_row + loan.borrower_row, loan.rows);
  }

  Communicator& cp_;
  DenseOps& dense_;
  const HaloPlace place_;
  std::vector<Loan> borrowed_;    // by this rank, in the order of its buffer
  std::vector<Loan> lent_;        // by this rank, in the order of borrowers, then of their buffers
  std::vector<Tensor> returned_;  // [rows lent,G,W] for each tensor: the gradients that come back
  ExchangeFrame frame_;
  int64_t borrowed_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Exchange> MakeHaloExchange(const Layout& layout, Communicator& cp, DenseOps& dense, int64_t halo,
                                           const HaloPlace& place) {
  CheckGroup("halo exchange", layout, cp);
  LS_CHECK(halo >= 0, "halo exchange: a halo of {} tokens", halo);
  const int64_t borrowed_row = place.borrowed_row < 0 ? place.own_row + layout.tokens() : place.borrowed_row;
  LS_CHECK(cp.size() == 1 || (place.own_row % layout.unit() == 0 && borrowed_row % layout.unit() == 0),
           "halo exchange: rows {} and {} are not the beginnings of pages of {}", place.own_row, borrowed_row,
           layout.unit());
  return std::make_unique<HaloExchange>(layout, cp, dense, halo, HaloPlace{place.own_row, borrowed_row});
}

}  // namespace longspan
