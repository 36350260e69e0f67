        add_up(PRODUCT, 0u, first_row, thread);
        workgroupBarrier();
        if (is_one) {
            FINISH(b, u, sums_of(PRODUCT, 0u, row, u));
        }
        workgroupBarrier();
