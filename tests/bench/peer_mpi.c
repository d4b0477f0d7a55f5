// The peer of the MPI sweep: what a person would write in an afternoon, with the timed region and the barriers of ours.
// Built with mpicc and loaded into the same ranks, so that both run in turn under one mpirun.
#include <mpi.h>
#include <time.h>

static MPI_Comm comm;
static char *send_buffer, *receive_buffer;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Collective over `world`. The buffers stay the caller's.
int peer_start(MPI_Comm world, void *to_send, void *to_receive) {
  send_buffer = to_send;
  receive_buffer = to_receive;
  return MPI_Comm_dup(world, &comm);
}

static int run(int operation, int count, int rank, int size) {
  switch (operation) {
    case 0:
      return MPI_Allreduce(send_buffer, receive_buffer, count, MPI_FLOAT, MPI_SUM, comm);
    case 1:
      return MPI_Allgather(send_buffer, count, MPI_FLOAT, receive_buffer, count, MPI_FLOAT, comm);
    case 2:
      return MPI_Reduce_scatter_block(send_buffer, receive_buffer, count, MPI_FLOAT, MPI_SUM, comm);
    case 3:
      return MPI_Bcast(rank == 0 ? send_buffer : receive_buffer, count, MPI_FLOAT, 0, comm);
    case 4:
      return MPI_Alltoall(send_buffer, count, MPI_FLOAT, receive_buffer, count, MPI_FLOAT, comm);
    case 5:
      return MPI_Reduce(send_buffer, receive_buffer, count, MPI_FLOAT, MPI_SUM, 0, comm);
    case 6:
      return MPI_Sendrecv(send_buffer, count, MPI_FLOAT, (rank + 1) % size, 0, receive_buffer, count, MPI_FLOAT,
                          (rank + size - 1) % size, 0, comm, MPI_STATUS_IGNORE);
  }
  return MPI_ERR_OP;
}

// Seconds of each iteration into `samples`. `count`: floats per block. Returns what MPI returned.
int peer_measure(int operation, int count, int warmup, int iterations, double *samples) {
  int rank, size, code;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  for (int i = -warmup; i < iterations; i++) {
    if ((code = MPI_Barrier(comm)) != MPI_SUCCESS) return code;
    double start = now();
    if ((code = run(operation, count, rank, size)) != MPI_SUCCESS) return code;
    double end = now();
    if (i >= 0) samples[i] = end - start;
  }
  return MPI_SUCCESS;
}
